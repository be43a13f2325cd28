"""Flips counted on a router of which every decision is known."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.robustness.flip_records import RobustnessRecord
from benchmarks.robustness.flips import KnownScores, measure_flips, share
from coe.base.errors import ConfigError, DataError
from coe.base.shares import wilson_interval
from coe.router.types import RoutingDecision
from tests.logged import decision_of

TEXTS = (
    "Convert the following measures to metric please",
    "Translate these sentences into Italian for my uncle",
    "Explain the difference between weather and climate",
    "Describe a sunset above the northern mountains",
)


def decided(expert: str, category: str) -> RoutingDecision:
    return decision_of(expert, category, is_fallback=category == "general", likely_category="words")


def by_shouting(texts: Sequence[str]) -> list[RoutingDecision]:
    """Texts in capitals go to another expert and category, those with an exclamation mark to another category."""
    return [
        decided("loud", "shouts") if text.isupper() else decided("calm", "exclaimed" if "!" in text else "words")
        for text in texts
    ]


def test_every_capital_letter_flips_and_nothing_else():
    record = measure_flips(by_shouting, TEXTS, 0, cases_per_family=None)
    case = record.families["case"]
    assert {name: part.value for name, part in case.templates.items()} == {
        "lower": 0.0, "random": 0.0, "title": 0.0, "upper": 1.0,
    }  # fmt: skip
    assert case.experts.value == 0.25
    assert case.experts.n == 16
    assert case.n_texts == 4
    assert all(family.experts.value == 0.0 for name, family in record.families.items() if name != "case")
    assert record.overall.experts.value == pytest.approx(4 / record.n_cases)
    assert record.overall.categories.value > record.overall.experts.value  # greetings with "!"
    assert record.families["padding"].categories.value > 0
    assert record.n_cases == sum(family.experts.n or 0 for family in record.families.values())


def test_intervals_hold_the_share_and_are_no_points():
    record = measure_flips(by_shouting, TEXTS, 0, cases_per_family=None)
    for family in record.families.values():
        interval = family.experts.interval
        assert interval.low <= family.experts.value < interval.high <= 1.0


@pytest.mark.parametrize(("count", "flips"), [(40, [True] * 20 + [False] * 20), (1, [True])])
def test_cases_of_one_text_count_as_one_where_they_flip_alike(count: int, flips: list[bool]):
    trials = [SimpleNamespace(text=number) for number in range(count) for _ in range(5)]
    found = share(trials, [flip for flip in flips for _ in range(5)])
    assert (found.value, found.n) == (sum(flips) / count, 5 * count)
    assert (found.interval.low, found.interval.high) == pytest.approx(wilson_interval(found.value, count), abs=0.005)


def test_flips_cost_what_the_other_expert_scores_less():
    scores = np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0], [np.nan, 1.0]], dtype=np.float32)
    known = KnownScores(("calm", "loud"), scores)
    record = measure_flips(by_shouting, TEXTS, 0, ["case"], cases_per_family=None, known=known)
    change = record.overall.quality_change
    assert change.value == pytest.approx((-1.0 - 0.5 + 1.0) / 12)  # the fourth text's own score is unknown
    assert change.interval.low < change.value < change.interval.high


def test_without_scores_no_cost_is_claimed():
    assert measure_flips(by_shouting, TEXTS, 0).overall.quality_change is None
    known = KnownScores(("others",), np.ones((4, 1), dtype=np.float32))
    assert measure_flips(by_shouting, TEXTS, 0, known=known).overall.quality_change is None


def test_moves_and_examples_name_what_flipped():
    record = measure_flips(by_shouting, TEXTS, 0, ["case"], cases_per_family=None)
    assert [(move.expert, move.to_expert, move.to_category, move.n) for move in record.moves] == [
        ("calm", "loud", "shouts", 4)
    ]
    assert [example.template for example in record.examples] == ["upper"] * 3
    assert [example.text for example in record.examples] == list(TEXTS[:3])
    assert all(example.changed_text == example.text.upper() for example in record.examples)


def test_texts_are_decided_once_in_one_call_and_two_runs_agree():
    calls: list[list[str]] = []

    def decide(texts: Sequence[str]) -> list[RoutingDecision]:
        calls.append(list(texts))
        return by_shouting(texts)

    first = measure_flips(decide, [*TEXTS, TEXTS[0]], 3)
    assert first == measure_flips(by_shouting, [*TEXTS, TEXTS[0]], 3)
    assert len(calls) == 1
    assert len(calls[0]) == len(set(calls[0]))
    assert RobustnessRecord.model_validate_json(first.model_dump_json()) == first


def test_nothing_to_measure_and_unknown_families_are_refused():
    with pytest.raises(DataError, match="no case to measure: 0 texts"):
        measure_flips(by_shouting, [], 0)
    with pytest.raises(DataError, match="1 texts, families typos"):
        measure_flips(by_shouting, ["12 + 5"], 0, ["typos"])
    with pytest.raises(ConfigError, match="'spelling'"):
        measure_flips(by_shouting, TEXTS, 0, ["spelling"])
