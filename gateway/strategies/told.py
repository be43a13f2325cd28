"""One answer of several: the served expert's, with the usage of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from base.json_text import to_json
from fleet.wires.builtin import chunks_of
from fleet.wires.echo import event
from gateway.answer_reader import reply_json
from gateway.expert_call import EVENT_STREAM, StreamedAnswer, WholeAnswer
from router.types import Usage


def total(usages: Iterable[Usage]) -> Usage:
    """The sum; an estimate where a part is one."""
    listed = list(usages)
    return Usage(
        prompt_tokens=sum(each.prompt_tokens for each in listed),
        completion_tokens=sum(each.completion_tokens for each in listed),
        is_estimated=any(each.is_estimated for each in listed),
    )


def with_usage(body: bytes, usage: Usage) -> bytes:
    """A whole answer that reports another usage."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return to_json({**reply_json(body), "usage": {**counts, "total_tokens": tokens}})


def streamed(answer: WholeAnswer, wants_usage: bool) -> StreamedAnswer:
    """A whole answer as the stream that a client asked for: the message in one piece, finish reason, usage, the end."""
    events = b"".join(frames(reply_json(answer.body)))
    return StreamedAnswer(answer.expert, EVENT_STREAM, events, chunks_of(()), hides_usage=not wants_usage)


def frames(answer: Mapping[str, Any]) -> Iterator[bytes]:
    frame = {name: answer[name] for name in ("id", "created", "model", "system_fingerprint") if name in answer}
    frame["object"] = "chat.completion.chunk"
    choice = answer["choices"][0]
    yield event({**frame, "choices": [{"index": 0, "delta": choice["message"], "finish_reason": None}]})
    end = {"index": 0, "delta": {}, "finish_reason": choice.get("finish_reason")}
    yield event({**frame, "choices": [end]})
    yield event({**frame, "choices": [], "usage": answer["usage"]})
    yield b"data: [DONE]\n\n"
