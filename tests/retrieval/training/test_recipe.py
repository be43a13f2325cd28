from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.retrieval.training.collection import Queries
from coe.retrieval.training.recipe import (
    MOST_HELD_OUT,
    Recipe,
    batches,
    hash_share,
    held_out_queries,
    one_cycle,
    planned_steps,
    seen_queries,
)


def queries(count: int) -> Queries:
    ids = tuple(f"q{i}" for i in range(count))
    return Queries(
        ids, tuple(f"what is thing {i}" for i in range(count)), tuple({i: 1, i + 100: 1} for i in range(count))
    )


@given(st.floats(0, 0.99))
def test_seen_and_held_out_are_all_and_disjoint(share: float) -> None:
    every = queries(60)
    seen, held = seen_queries(every, share).ids, held_out_queries(every, share).ids
    assert sorted((*seen, *held)) == sorted(every.ids)
    assert not set(seen) & set(held)


def test_the_split_is_by_text_and_near_its_share() -> None:
    assert hash_share("What is  this?") == hash_share("what is this")
    assert 0.42 < np.mean([hash_share(f"query number {i}") < 0.5 for i in range(1000)]) < 0.58
    assert 40 < len(held_out_queries(queries(100), 0.5)) < 60


def test_what_is_kept_for_pilots_is_bounded_and_stays_kept_when_queries_are_few() -> None:
    every = queries(1000)
    held = held_out_queries(every, 0.5)
    assert len(held) == MOST_HELD_OUT
    assert max(map(hash_share, held.texts)) < min(map(hash_share, seen_queries(every, 0.5).texts))
    twice = Queries((*every.ids, "again"), (*every.texts, held.texts[0].upper()), (*every.grades, {0: 1}))
    assert "again" in held_out_queries(twice, 0.5).ids  # however it is written


def test_an_epoch_holds_every_query_once_with_a_relevant_document() -> None:
    sets = [queries(10), queries(7)]
    recipe = Recipe(batch=4, epochs=1)
    steps = planned_steps(sets, recipe)
    assert steps == 5
    epoch = list(batches(sets, recipe, steps))
    for place, part in enumerate(sets):
        mine = [batch for batch in epoch if batch.collection == place]
        assert sorted(row for batch in mine for row in batch.queries) == list(range(len(part)))
        assert all(d in part.grades[q] for b in mine for q, d in zip(b.queries, b.documents, strict=True))


def test_batches_are_the_same_every_time_so_that_a_run_can_go_on() -> None:
    sets = [queries(10)]
    first = list(batches(sets, Recipe(batch=4), 12))
    assert len(first) == 12
    assert list(islice(batches(sets, Recipe(batch=4), 12), 7, None)) == first[7:]
    assert list(batches(sets, Recipe(batch=4, seed=1), 12)) != first


def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing() -> None:
    recipe = Recipe(learning_rate=1e-3, warm_up=0.1)
    rates = [one_cycle(step, 100, recipe) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3 / 25)
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[100] == pytest.approx(1e-3 / 250_000)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
