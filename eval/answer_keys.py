"""The kind of answer that a probe asks for, and the keys by which answers of different experts are compared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

from eval.chat_client import CallError, ChatClient
from eval.probe_set import GraderSpec, Probe
from router import plugins
from router.section import PluginConfig
from router.strategies.kind_of import FAMILY
from router.strategies.types import AnswerKind, Question

KIND_OF: Final = {
    "numeric": "number",
    "label": "label",
    "json_fields": "json",
    "exact": "text",
    "python_tests": "code",
    "sql": "sql",
}
"""Kind of answers by kind of grader. What the others look for (words anywhere in a text) is not compared by itself."""

Ask = Callable[[str, Mapping[str, object]], str | None]


def answer_kind_of(grader: GraderSpec) -> AnswerKind | None:
    """None where answers cannot be compared."""
    kind = KIND_OF.get(grader.kind)
    if kind is None:
        return None
    options = {"labels": grader.__pydantic_extra__["labels"]} if kind == "label" else {}
    return cast(AnswerKind, plugins.build(FAMILY, kind, options))


def kind_of_probe(probe: Probe, declared: Mapping[str, PluginConfig]) -> AnswerKind | None:
    """As its grader tells, else as experts.yaml declares of its category (`answers`)."""
    own, config = answer_kind_of(probe.grader), declared.get(probe.category)
    return own if own or config is None else cast(AnswerKind, plugins.build(FAMILY, config.kind, config.options))


async def keys_of(
    answers: Iterable[tuple[int, int, str]], kinds: Mapping[int, AnswerKind], questions: Mapping[int, Question]
) -> list[tuple[int, int, str | None]]:
    """The key of every answer (row, column, text) to a prompt, by row, of which its kind can tell; in their order."""
    keys = {row: kind.key_for(questions[row]) for row, kind in kinds.items()}
    found = []
    for row, column, text in answers:
        key = keys.get(row)
        if key is not None:
            found.append((row, column, await asyncio.to_thread(key, text) if kinds[row].is_slow else key(text)))
    return found


def asks_by(client: ChatClient) -> Ask:
    """Asks an expert over HTTP, for a thread that compares answers; None where it gives no reply."""
    loop = asyncio.get_running_loop()

    def ask(expert: str, body: Mapping[str, object]) -> str | None:
        try:
            return asyncio.run_coroutine_threadsafe(client.send({"model": expert, **body}), loop).result()[0]
        except CallError:
            return None

    return ask
