"""Answers by which weights are known again."""

from __future__ import annotations

import math

import pytest

from coe.base.errors import BackendError
from coe.base.json_text import to_json
from coe.fleet.residency.fingerprints import KEPT, answer_of, is_same


def completions(*tops: dict[str, float]) -> bytes:
    return to_json({"choices": [{"logprobs": {"top_logprobs": [top]}} for top in tops]})


def test_answers_of_each_kind_of_model_are_numbers_by_text_and_place() -> None:
    assert answer_of(completions({" a": -0.5, " b": -1.5}, {" a": -2.0})) == {"0  a": -0.5, "0  b": -1.5, "1  a": -2.0}
    vectors = to_json({"data": [{"embedding": [0.25] * 1000}, {"embedding": [0.5] * 1000}]})
    assert [*answer_of(vectors).values()] == [0.25] * KEPT + [0.5] * KEPT
    scores = to_json({"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]})
    assert answer_of(scores) == {"0 1": 0.9, "0 0": 0.1}
    for reply in (b"nonsense", b"[]", b'{"choices": [{"logprobs": null}]}'):
        with pytest.raises(BackendError, match="no fingerprint"):
            answer_of(reply)


@pytest.mark.parametrize(
    ("after", "same"),
    [
        ({"a": -0.5, "b": -2.0, "c": -3.0, "d": -4.0}, True),
        ({"a": -0.52, "b": -2.01, "c": -3.0, "d": -4.0}, True),
        ({"a": -0.5, "b": -2.0, "c": -3.0, "e": -4.0}, True),  # a near tie for the last place
        ({"a": -0.9, "b": -2.0, "c": -3.0, "d": -4.0}, False),
        ({"e": -0.5, "f": -2.0, "g": -3.0, "a": -0.5}, False),  # as sure as before, of something else
        ({"a": math.nan, "b": -2.0, "c": -3.0, "d": -4.0}, False),
        ({}, False),
    ],
)
def test_the_same_weights_say_the_same(after: dict[str, float], same: bool) -> None:
    assert is_same({"a": -0.5, "b": -2.0, "c": -3.0, "d": -4.0}, after) is same
