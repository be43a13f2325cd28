"""Kinds of answers, one file each; see router/plugins.py.

A kind says when two answers are the same, by their keys, and grades one against the reference values of its options.
Most do both; some only one.

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
"""Characters of a prompt in which a kind looks for examples or tables."""
MAX_ANSWER_CHARS: Final = 10_000
"""Kinds read no further. Ours: ten times what the largest `max_tokens` of a probe can give, so that an answer of
megabytes costs no more than a long one."""

_FENCE: Final = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)

KeyOf = Callable[[str], str | None]
"""An answer's key, None where it states none: answers of one key are the same answer."""

Score = Callable[[str], float]
"""The grade of an answer, in [0, 1]; 1 is right."""


def compares_none(prompt: str) -> KeyOf | None:
    """Return no key: the `key_for` of a kind that only grades."""
    return None


@dataclass(frozen=True, slots=True)
class AnswerKind:
    """The interface of an answer kind, as returned by its `build`.

    `key_for` takes the text of a request's messages and returns the function from an answer to its key, or None if the
    kind cannot compare answers to this request. `score` grades an answer; it is None if the options have no reference
    values. `is_slow` says that a key may take milliseconds or more: keys then run in a thread, one after the other.
    """

    key_for: Callable[[str], KeyOf | None] = compares_none
    score: Score | None = None
    is_slow: bool = False


def kind_of_text(key: KeyOf, right: Collection[str | None] = (), score: Score | None = None) -> AnswerKind:
    """Return a kind whose keys follow from the answer alone; an answer with one of the keys `right` is right by
    default."""
    by_key: Score | None = (lambda answer: float(key(answer) in right)) if right else None
    return AnswerKind(lambda prompt: key, score or by_key)


def answer_kind(facts: QueryFacts, category: str, declared: Mapping[str, PluginConfig]) -> AnswerKind | str:
    """Return the kind that compares the texts of answers to a request, or the reason why there is none. It is JSON if
    the request wants JSON, else the kind that experts.yaml declares for the category under `answers`. Calls of tools
    are compared by `calls_of` instead."""
    if facts.wants_json:
        return comparing_kind("json")
    if category not in declared:
        return f"no kind of answers is declared for category '{category}'"
    return declared_kind(declared[category])


def calls_of(tools: object) -> KeyOf:
    """Return the function from an answer to the key of its tool calls, as JSON; `tools` is a list of tools or one."""
    listed = tools if isinstance(tools, list) else [tools]
    offered = [tool for tool in listed if isinstance(tool, dict)]
    key = built_kind("call", {"tools": offered}).key_for("")
    assert key is not None, "calls can be compared whatever was asked"
    return key


def declared_kind(config: PluginConfig) -> AnswerKind:
    """Build the kind that experts.yaml declares. Errors are those of `comparing_kind`."""
    return comparing_kind(config.kind, dumps(config.options, sort_keys=True))


@lru_cache(maxsize=256)
def comparing_kind(kind: str, options: str = "{}") -> AnswerKind:
    """Build a kind by which answers are compared, from its options as JSON.

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
    """Build a kind from its options.

    Raises:
        ConfigError: unknown kind or option.
    """
    return cast(AnswerKind, plugins.build(FAMILY, kind, options))


def comparing() -> list[str]:
    """Return the names of the kinds by which answers can be compared."""
    examples = {kind: plugins.load(FAMILY, kind) for kind in plugins.kinds(FAMILY)}
    return [kind for kind, plugin in examples.items() if plugin.build(plugin.EXAMPLES[0]).key_for is not compares_none]


def clip(answer: str) -> str:
    """Return the first `MAX_ANSWER_CHARS` characters."""
    return answer[:MAX_ANSWER_CHARS]


def first_line(text: str) -> str:
    """Return the first line that holds more than white space; empty if there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def fenced_blocks(text: str) -> tuple[str, ...]:
    """Return the contents of the ``` blocks in order. A last block that was cut off before its closing fence counts."""
    return tuple(match.group(1) for match in _FENCE.finditer(text))
