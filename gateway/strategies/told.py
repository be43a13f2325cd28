"""One answer of several: the served expert's, with the usage of all."""

from __future__ import annotations

from base.json_text import to_json
from fleet.wires.builtin import chunks_of, frames
from gateway.answer_reader import reply_json
from gateway.expert_answer import EVENT_STREAM, StreamedAnswer, WholeAnswer
from router.types import Usage


def with_usage(body: bytes, usage: Usage) -> bytes:
    """A whole answer that reports another usage, without log-probabilities: a client that wants some has one expert."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    reply = reply_json(body)
    for choice in reply["choices"]:
        choice.pop("logprobs", None)
    return to_json({**reply, "usage": {**counts, "total_tokens": tokens}})


def streamed(answer: WholeAnswer, wants_usage: bool) -> StreamedAnswer:
    """A whole answer as the stream that a client asked for."""
    events = b"".join(frames(reply_json(answer.body), has_usage=True))
    return StreamedAnswer(answer.expert, EVENT_STREAM, events, chunks_of(()), hides_usage=not wants_usage)
