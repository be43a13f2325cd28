"""A conversation: what a person asks in it, what is classified of that, and when it leaves its expert. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from router.types import FloatArray, QueryFacts, Stay

# Agent programs wrap what a person typed. The content of the first kind is dropped, the second kind is unwrapped.
DROPPED_WRAPPERS = (
    "system-reminder",
    "environment_details",
    "environment_context",
    "user_instructions",
    "additional_data",
)
OPENED_WRAPPERS = ("task", "user_query", "user_message")

CUT_MARK = "\n[...]\n"


def ask_in(text: str) -> str:
    """Extracts what a person asks from a message."""
    return unwrap(text).strip()


def unwrap(text: str) -> str:
    """The text without what agent programs put around it. Linear in the text, whatever it holds."""
    if "<" not in text:
        return text
    for name in DROPPED_WRAPPERS:
        text = without_blocks(text, f"<{name}>", f"</{name}>")
    for name in OPENED_WRAPPERS:
        start, end = text.find(f"<{name}>"), text.rfind(f"</{name}>")
        if 0 <= start < end:
            return text[start + len(name) + 2 : end]
    return text


def without_blocks(text: str, opening: str, closing: str) -> str:
    """Removes what lies between each opening and its closing; an opening that is never closed stays."""
    kept = []
    position = 0
    while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start)) >= 0:
        kept.append(text[position:start])
        position = end + len(closing)
    return "".join([*kept, text[position:]])


def cap(text: str, max_chars: int) -> str:
    """Head and tail of a text that is too long: the question is usually first or last."""
    if len(text) <= max_chars:
        return text
    half = (max_chars - len(CUT_MARK)) // 2
    return f"{text[:half]}{CUT_MARK}{text[-half:]}"


SELF_CONTAINED_BYTES = 16
"""Length in UTF-8 at which an ask that is classified with certainty counts as much as all before it. Bytes, because a
word of a script without spaces is a few characters. Chosen on benchmarks/follow_ups/dev.jsonl."""

LEAST_SHARE = 0.1
"""When less than this is left for earlier asks, they are not looked at."""

MAX_EARLIER = 8
"""Asks before the last one that are looked at, at most: a bound on the work that a request can cause."""

PRICE_PER_1000_TOKENS = 0.01
"""Quality that reading 1,000 tokens again must bring (ours). Another expert has nothing of the conversation in its
prefix cache."""


def own_share(ask: str, confidence: float) -> float:
    """Share of an ask in what it and those before it mean, in [0, 1): s / (1 + s) with s = p (bytes / 16)^2.

    "and in Spanish?" says little alone, and p, the probability of its most likely category, shows it; a sentence that
    names its task needs nothing before it.
    """
    strength = confidence * (len(ask.encode("utf-8", "replace")) / SELF_CONTAINED_BYTES) ** 2
    return strength / (1 + strength)


def in_context(
    asks: Sequence[str], encode: Callable[[str], FloatArray], confidence: Callable[[FloatArray], float]
) -> FloatArray:
    """(1, d) vector of a conversation: the sum of its asks' vectors by share, of unit length.

    The last ask takes its own share, the one before it its own share of the rest, and so on until nearly nothing is
    left, so the vector of a self-contained ask is its own, to the last bit.

    Args:
        asks: newest first, at least one.
        encode: gives (1, d) of a text.
        confidence: gives the probability of the most likely category of a vector (1, d).
    """
    rest, total = 1.0, np.zeros(0, dtype=np.float32)
    for place, ask in enumerate(asks, start=1):
        vector = encode(ask)
        share = rest if place == len(asks) else rest * own_share(ask, confidence(vector))
        if rest - share < LEAST_SHARE:
            share = rest
        if share == 1.0:
            return vector
        total = share * vector if place == 1 else total + share * vector
        rest -= share
        if rest == 0.0:
            break
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-12), dtype=np.float32)


def stay(facts: QueryFacts, gain: float, *, is_pinned: bool, is_unsure: bool) -> Stay:
    """The choice between a conversation's last expert, which could serve, and the planned one.

    Args:
        gain: predicted quality of the planned expert less that of the last one.
        is_pinned: experts.yaml names the planned one, which only a tool loop disregards.
        is_unsure: stage 1 does not know what is asked. Then the gain is that of an average query, while what was asked
            before says more of this one, so the conversation stays.
    """
    assert facts.last_expert is not None
    if facts.in_tool_loop:
        return Stay(last_expert=facts.last_expert, gain=gain, price=None, kept=True)
    if is_unsure and not is_pinned:
        return Stay(last_expert=facts.last_expert, gain=gain, price=None, kept=True, is_unsure=True)
    price = facts.prompt_tokens / 1000 * PRICE_PER_1000_TOKENS
    return Stay(last_expert=facts.last_expert, gain=gain, price=price, kept=gain <= price and not is_pinned)
