"""The vector of a conversation."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coe.router.reading.conversation import LEAST_SHARE, SELF_CONTAINED_BYTES, in_context, own_share
from coe.router.types import FloatArray
from tests.gateway.small_router import small_router

ASKS = st.lists(st.text(max_size=80), min_size=1, max_size=6)
PROBABILITY = st.floats(0.01, 1.0)


def encode(ask: str) -> FloatArray:
    """A unit vector per text."""
    seed = int.from_bytes(hashlib.sha256(ask.encode("utf-8", "replace")).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=(1, 16)).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


@given(ASKS, PROBABILITY)
def test_vectors_have_unit_length(asks: list[str], probability: float) -> None:
    vector = in_context(asks, encode, lambda _: probability)
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-4


@given(ASKS, PROBABILITY)
def test_an_ask_that_speaks_for_itself_keeps_its_vector_to_the_last_bit(asks: list[str], probability: float) -> None:
    long = "x" * int(SELF_CONTAINED_BYTES * np.sqrt((1 / LEAST_SHARE) / probability) + 1)
    assert np.array_equal(in_context([long, *asks], encode, lambda _: probability), encode(long))
    assert np.array_equal(in_context(asks[:1], encode, lambda _: probability), encode(asks[0]))


@given(st.text(min_size=1, max_size=40), PROBABILITY, PROBABILITY)
def test_the_share_grows_with_length_and_with_certainty(ask: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= own_share(ask, low) <= own_share(ask, high) < 1
    assert own_share(ask, low) <= own_share(ask + "more", low)


def test_earlier_asks_that_nobody_needs_are_not_encoded() -> None:
    seen: list[str] = []

    def noted(ask: str) -> FloatArray:
        seen.append(ask)
        return encode(ask)

    long = "How many employees does each department have in 2024, sorted by name?"
    in_context(["and by size?", long, "never read"], noted, lambda _: 0.9)
    assert seen == ["and by size?", long]


def test_a_vague_ask_belongs_to_the_category_before_it_and_a_clear_one_does_not() -> None:
    router = small_router()
    red = "tell me all about red things and how they came to be red"
    assert np.array_equal(router.embed("and why", (red,)), router.embed(red))
    green = "now something else entirely, please: which things are green?"
    assert np.array_equal(router.embed(green, (red,)), router.embed(green))
