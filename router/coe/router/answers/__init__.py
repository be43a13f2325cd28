"""Kinds of answers, one file each; see router/plugins.py. A kind says when two answers are the same, by their keys, and
grades one against the reference values of its options. Most do both; some only one.

Here is what several kinds read in an answer too. Any text is a legal answer: no kind raises because of what it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from json import dumps, loads
from typing import Final, cast

from coe.base.errors import ConfigError, allowed_values
from coe.router import plugins
from coe.router.section import PluginConfig
from coe.router.types import QueryFacts

FAMILY = "router.answers"
MAX_PROMPT_CHARS: Final = 20_000
"""Of a prompt, in which a kind looks for examples or tables."""
MAX_ANSWER_CHARS: Final = 10_000
"""Kinds read no further. Ours: ten times what the largest `max_tokens` of a probe can give, so that an answer of
megabytes costs no more than a long one."""

_FENCE: Final = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)

KeyOf = Callable[[str], str | None]
"""An answer's key, None where it states none: answers of one key are the same answer."""

Score = Callable[[str], float]
"""The grade of an answer, in [0, 1]; 1 is right."""


def compares_none(prompt: str) -> KeyOf | None:
    """The keys of a kind that only grades."""
    return None


@dataclass(frozen=True, slots=True)
class AnswerKind:
    """What `build` of a kind gives.

    `key_for` gives the keys of answers to the text of a request's messages, or None where it cannot tell of this
    request. `score` grades; None where the options have no reference values. `is_slow`: a key may take milliseconds or
    more, so that it belongs into a thread, one key of a request after the other.
    """

    key_for: Callable[[str], KeyOf | None] = compares_none
    score: Score | None = None
    is_slow: bool = False


def kind_of_text(key: KeyOf, right: Collection[str | None] = (), score: Score | None = None) -> AnswerKind:
    """A kind whose keys follow from the answer alone; by default an answer with one of the keys `right` is right."""
    by_key: Score | None = (lambda answer: float(key(answer) in right)) if right else None
    return AnswerKind(lambda prompt: key, score or by_key)


def answer_kind(facts: QueryFacts, category: str, declared: Mapping[str, PluginConfig]) -> AnswerKind | str:
    """JSON where the request wants it, else what experts.yaml declares of the category (`answers`); the reason where
    nothing tells. It compares texts, not calls of tools, which `calls_of` does."""
    if facts.wants_json:
        return comparing_kind("json")
    if category not in declared:
        return f"no kind of answers is declared for category '{category}'"
    return declared_kind(declared[category])


def calls_of(tools: object) -> KeyOf:
    """Keys of the calls in an answer, as JSON, to a request that offers `tools`: a list, or one alone."""
    listed = tools if isinstance(tools, list) else [tools]
    offered = [tool for tool in listed if isinstance(tool, dict)]
    key = built_kind("call", {"tools": offered}).key_for("")
    assert key is not None, "calls can be compared whatever was asked"
    return key


def declared_kind(config: PluginConfig) -> AnswerKind:
    """The kind that experts.yaml declares. Raises ConfigError as `comparing_kind` does."""
    return comparing_kind(config.kind, dumps(config.options, sort_keys=True))


@lru_cache(maxsize=256)
def comparing_kind(kind: str, options: str = "{}") -> AnswerKind:
    """A kind by which answers are compared, of options as JSON.

    Raises:
        ConfigError: unknown kind or option, a kind that only grades, or reference values, which only a probe has.
    """
    built = built_kind(kind, loads(options))
    if built.key_for is compares_none:
        raise ConfigError(f"answers of kind '{kind}' are graded, never compared{allowed_values(kind, comparing())}")
    if built.score is not None:
        raise ConfigError(f"answers of kind '{kind}' are compared; only the grader of a probe has reference values")
    return built


def built_kind(kind: str, options: Mapping[str, object]) -> AnswerKind:
    """Raises ConfigError on an unknown kind or option."""
    return cast(AnswerKind, plugins.build(FAMILY, kind, options))


def comparing() -> list[str]:
    """Kinds by which answers can be compared."""
    examples = {kind: plugins.load(FAMILY, kind) for kind in plugins.kinds(FAMILY)}
    return [kind for kind, plugin in examples.items() if plugin.build(plugin.EXAMPLES[0]).key_for is not compares_none]


def clip(answer: str) -> str:
    """The first `MAX_ANSWER_CHARS` characters."""
    return answer[:MAX_ANSWER_CHARS]


def first_line(text: str) -> str:
    """The first line that holds more than white space; empty when there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def fenced_blocks(text: str) -> tuple[str, ...]:
    """Contents of the ``` blocks in order. A last block that was cut off before its closing fence counts."""
    return tuple(match.group(1) for match in _FENCE.finditer(text))
