"""The share of an answer that an edit kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.gateway.endpoints.feedback import common_length, kept_share

WORDS = st.lists(st.sampled_from("abcd"), max_size=80)


def by_table(left: list[str], right: list[str]) -> int:
    """The textbook's dynamic program."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = row[:]
        for j, other in enumerate(right, start=1):
            row[j] = before[j - 1] + 1 if word == other else max(before[j], row[j - 1])
    return row[-1]


@given(WORDS, WORDS)
def test_common_length_is_that_of_the_dynamic_program(left, right):
    assert common_length(left, right) == by_table(left, right)


@pytest.mark.parametrize(
    ("original", "edited", "share"),
    [
        ("The cat sat.", "The cat sat.", 1.0),
        ("The cat sat.", "The cat slept.", 0.75),
        ("The cat sat.", "", 0.0),
        ("The cat sat.", "Yesterday, the old The cat sat. And more.", 1.0),
        ("a b c d", "d c b a", 0.25),
        ("一二三四", "一二四", 0.75),
        ("", "anything", 1.0),
    ],
)
def test_examples(original, edited, share):
    assert kept_share(original, edited) == share
