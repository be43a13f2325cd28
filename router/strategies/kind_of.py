"""The kind of answer that a request asks for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import cast

from router import plugins
from router.section import PluginConfig
from router.strategies.types import AnswerKind
from router.types import QueryFacts

FAMILY = "router.strategies.kinds"


MORE_THAN_TEXT = "the answer may be a call of a tool"


def answer_kind(facts: QueryFacts, category: str, declared: Mapping[str, PluginConfig]) -> AnswerKind | str:
    """JSON where the request wants it, else what experts.yaml declares of the category (`answers`).

    The reason where nothing tells, and where the answer may be a call of a tool: then one expert serves.
    """
    if facts.has_tools or facts.in_tool_loop:
        return MORE_THAN_TEXT
    if facts.wants_json:
        return built_kind("json", ())
    config = declared.get(category)
    if config is None:
        return f"no kind of answers is declared for category '{category}'"
    return built_kind(config.kind, tuple(sorted(_hashable(config).items())))


def _hashable(config: PluginConfig) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config.options.items()}


@lru_cache(maxsize=256)
def built_kind(kind: str, options: tuple[tuple[str, object], ...]) -> AnswerKind:
    """Raises ConfigError on an unknown kind or option."""
    return cast(AnswerKind, plugins.build(FAMILY, kind, dict(options)))
