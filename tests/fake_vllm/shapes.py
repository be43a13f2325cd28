"""Requests that the fake reads and answers that it writes, in vLLM's shapes."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue

Json = dict[str, JsonValue]


class Part(BaseModel):
    """A piece of a message."""

    text: str = ""


class Message(BaseModel):
    """One turn."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    """Extras of a stream."""

    include_usage: bool = False


class Asked(BaseModel):
    """Fields of both kinds of request. Unknown ones are ignored, as vLLM does."""

    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()


class ChatAsked(Asked):
    """A chat."""

    messages: list[Message] = Field(min_length=1)


class EmbeddingsAsked(BaseModel):
    """Texts to embed."""

    model: str | None = None
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    truncate_prompt_tokens: int | None = None


class RerankAsked(BaseModel):
    """Documents to order."""

    model: str | None = None
    query: str
    documents: list[str]
    truncate_prompt_tokens: int | None = None


class CompletionAsked(Asked):
    """A text to continue."""

    prompt: str | list[str]
    logprobs: int | None = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class TokenizeAsked(BaseModel):
    """A text or a chat to cut into tokens."""

    prompt: str | None = None
    messages: list[Message] = []


class AdapterNamed(BaseModel):
    """An adapter to unload."""

    lora_name: str


class AdapterAsked(AdapterNamed):
    """An adapter to load."""

    lora_path: str
    load_inplace: bool = False


class Called(BaseModel):
    """A method to run on the workers."""

    method: str


class SleepAsked(BaseModel):
    """The query of /sleep."""

    level: Annotated[int, Field(ge=0, le=2)] = 1
    mode: Literal["abort", "wait", "keep"] = "abort"


class ChatForm:
    """The shape of chat completions."""

    def __init__(self, model: str) -> None:
        self._frame: Json = {
            "id": f"chatcmpl-{uuid.uuid4().hex[:16]}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, finish_reason: str) -> Json:
        message: JsonValue = {"role": "assistant", "content": text, "refusal": None}
        choice: JsonValue = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return {**self._frame, "object": "chat.completion", "choices": [choice]}

    def piece(self, text: str, finish_reason: str | None) -> Json:
        choice: JsonValue = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
        return self.last() | {"choices": [choice]}

    def opening(self) -> Json | None:
        delta: JsonValue = {"role": "assistant", "content": ""}
        return self.last() | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}

    def last(self) -> Json:
        return {**self._frame, "object": "chat.completion.chunk", "choices": []}


class TextForm(ChatForm):
    """The shape of text completions."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._frame["id"] = f"cmpl-{uuid.uuid4().hex[:16]}"

    def whole(self, text: str, finish_reason: str | None) -> Json:
        choice: JsonValue = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return self.last() | {"choices": [choice]}

    piece = whole

    def opening(self) -> None:
        return None

    def last(self) -> Json:
        return {**self._frame, "object": "text_completion", "choices": []}
