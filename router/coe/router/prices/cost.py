"""The price of an answer: rates by kind of token, and the one function that applies them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator

from coe.base.errors import allowed_values
from coe.router.prices.usage import Usage
from coe.router.section import Usd

PROMPT = {
    "input": None,
    "cache_read": "input",
    "cache_read_audio": "cache_read",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "cache_write_12h": "cache_write",
    "audio_in": "input",
    "image_in": "input",
}
ANSWER = {"output": None, "reasoning": "output", "audio_out": "output", "image_out": "output"}
"""Kinds of tokens of an answer. A kind without a price has the price of another, as in litellm: a provider without a
price of cached tokens bills them as others."""

KINDS = PROMPT | ANSWER
MEDIA = frozenset({"cache_read_audio", "audio_in", "image_in", "audio_out", "image_out"})
LASTING = frozenset({"cache_write_1h", "cache_write_12h"})


def check_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of token{allowed_values(kind, list(KINDS))}")
    return kind


Rates = dict[Annotated[str, AfterValidator(check_kind)], Usd]
"""USD per million tokens."""


@dataclass(frozen=True)
class Price:
    """Rates by kind in USD per million tokens, and those that change above a number of prompt tokens."""

    rates: Mapping[str, float]
    above: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    @cached_property
    def tiers(self) -> tuple[tuple[int, Mapping[str, float]], ...]:
        """The rate of each kind by the prompt tokens above which it holds, longest prompts first."""
        stated = {**self.rates}
        found = [(-1, resolved(stated))]
        for least, rates in sorted(self.above.items()):
            stated |= rates
            found.append((least, resolved(stated)))
        return tuple(reversed(found))

    def at(self, prompt_tokens: float) -> Mapping[str, float]:
        """Return the rate of each kind in requests with prompts of that length."""
        return next(rates for least, rates in self.tiers if prompt_tokens > least)

    @property
    def of_text(self) -> tuple[float, float]:
        """The rates of input and output in short requests."""
        rates = self.tiers[-1][1]
        return rates["input"], rates["output"]

    def most(self, prompt_tokens: int, answer_tokens: int, without: Collection[str] = ()) -> float:
        """Return the highest cost in USD of so many tokens, of any kinds but those of `without`."""
        reached = [rates for least, rates in self.tiers if prompt_tokens > least]

        def dearest(kinds: Iterable[str]) -> float:
            return max(rates[kind] for rates in reached for kind in kinds if kind not in without)

        return (prompt_tokens * dearest(PROMPT) + answer_tokens * dearest(ANSWER)) / 1e6


def cost(usage: Usage, price: Price) -> float:
    """Return the cost of one answer in USD; it equals `litellm.completion_cost` at the prices of litellm's table."""
    prompt, answer = usage.prompt_tokens, usage.completion_tokens
    for least, rates in price.tiers:  # noqa: B007  # as `at`, without its calls in each chat
        if prompt > least:
            break
    if not usage.kinds:
        return (prompt * rates["input"] + answer * rates["output"]) / 1e6
    micro_usd = 0.0
    for kind, tokens in usage.kinds.items():
        if kind in PROMPT:
            prompt -= tokens
        elif kind in ANSWER:
            answer -= tokens
        else:  # of a later coe: text, as far as this one knows
            continue
        micro_usd += tokens * rates[kind]
    return (micro_usd + prompt * rates["input"] + answer * rates["output"]) / 1e6


def resolved(stated: Mapping[str, float]) -> dict[str, float]:
    """Return the rate of every kind."""
    found: dict[str, float] = {}
    for kind, other in KINDS.items():
        found[kind] = stated.get(kind, found[other] if other else 0.0)
    return found
