"""Records of strategies. Experts are numbers of a router's columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, cast

from router import plugins
from router.section import PluginConfig
from router.types import FloatArray, QueryFacts


class StrategyName(StrEnum):
    """Ways to answer a query by one expert or by several."""

    SINGLE = "single"  # one, the map's
    AGREE = "agree"  # two probes; the same answer is served, else that of an arbiter
    VOTE = "vote"  # several at once; the most probable answer
    SEQUENTIAL = "sequential"  # one after the other until asking on gains less than it costs
    ESCALATE = "escalate"  # a cheap one first; a strong one where its reply does not pass


MAX_PROMPT_CHARS = 20_000
"""Of a prompt, in which a kind looks for examples or tables."""

KeyOf = Callable[[str], str | None]
"""An answer's key, None where it states none: answers of one key are the same answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """Means by which a kind may compare the answers to one request: the text of its messages; the router's encoder,
    from texts to vectors (n, d); and the text that an expert replies to a chat body, None where it gives none."""

    text: str = ""
    embed: Callable[[Sequence[str]], FloatArray] | None = None
    ask: Callable[[str, Mapping[str, object]], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Judging:
    """An expert that compares answers, two at a time; a call has a prompt and a reply of at most so much."""

    expert: str
    prompt_bytes: int
    reply_tokens: int


@dataclass(frozen=True, slots=True)
class AnswerKind:
    """One way to tell whether two answers are the same.

    `key_for` gives the keys of answers to a request, or None where it cannot tell of this request. `is_slow`: a key
    may take milliseconds or more, so that it belongs into a thread, one key of a request after the other. `judging`
    says who is asked meanwhile.
    """

    key_for: Callable[[Question], KeyOf | None]
    is_slow: bool = False
    judging: Judging | None = None


def kind_of_text(key: KeyOf) -> AnswerKind:
    """A kind whose keys follow from the answer alone."""
    return AnswerKind(lambda question: key)


@dataclass(frozen=True, slots=True)
class Reply:
    """An expert's reply. `key` is its answer's, None where it states none or was cut off. `is_failure`: there is
    nothing to serve, because the expert failed or was not asked (it cannot take the request). `logprob` is the mean
    log-probability of its tokens, where the engine gave them."""

    key: str | None = None
    is_failure: bool = False
    logprob: float | None = None


Replies = Mapping[int, Reply]
"""Replies so far by expert, failures among them."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Experts to ask next, all at once."""

    experts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """The end: the expert whose reply is served, None where all failed. `confidence` is the probability that its answer
    is right, None where nothing says; `agreed` counts the experts that gave it."""

    expert: int | None
    confidence: float | None = None
    agreed: int = 0


class Strategy(Protocol):
    """A strategy for one query. It keeps nothing: the same replies lead to the same step."""

    @property
    def experts(self) -> tuple[int, ...]:
        """All whom it may ask, each once."""
        ...

    def step(self, replies: Replies) -> Ask | Settled:
        """Next step after these replies. `Ask` names only experts that have not replied."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """A strategy for one request. Its experts are numbers of `experts`; answers with one key of `kind` are the same.
    `embed` is the router's encoder."""

    name: StrategyName
    strategy: Strategy
    experts: tuple[str, ...]
    kind: AnswerKind
    embed: Callable[[Sequence[str]], FloatArray]

    @property
    def asked(self) -> tuple[str, ...]:
        """All whom it may ask."""
        return tuple(self.experts[each] for each in self.strategy.experts)


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
    if category not in declared:
        return f"no kind of answers is declared for category '{category}'"
    return declared_kind(declared[category])


def declared_kind(config: PluginConfig) -> AnswerKind:
    """The kind that experts.yaml declares. Raises ConfigError as `built_kind` does."""
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in config.options.items()}
    return built_kind(config.kind, tuple(sorted(options.items())))


@lru_cache(maxsize=256)
def built_kind(kind: str, options: tuple[tuple[str, object], ...]) -> AnswerKind:
    """Raises ConfigError on an unknown kind or option."""
    return cast(AnswerKind, plugins.build(FAMILY, kind, dict(options)))
