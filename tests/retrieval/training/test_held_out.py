from __future__ import annotations

import numpy as np

from coe.retrieval.training.collection import Queries
from coe.retrieval.training.held_out import HELD_OUT, MOST_HELD_OUT, hash_share, held_out_queries, seen_queries


def queries(count: int) -> Queries:
    ids = tuple(f"q{i}" for i in range(count))
    return Queries(ids, tuple(f"what is thing {i}" for i in range(count)), tuple({i: 1} for i in range(count)))


def test_seen_and_held_out_are_all_and_disjoint() -> None:
    for count in (0, 1, 60, 1000):
        every = queries(count)
        seen, held = seen_queries(every).ids, held_out_queries(every).ids
        assert sorted((*seen, *held)) == sorted(every.ids)
        assert not set(seen) & set(held)


def test_the_split_is_by_text_and_near_its_share() -> None:
    assert hash_share("What is  this?") == hash_share("what is this")
    assert 0.42 < np.mean([hash_share(f"query number {i}") < 0.5 for i in range(1000)]) < 0.58
    assert abs(len(held_out_queries(queries(400))) / 400 - HELD_OUT) < 0.06


def test_what_is_kept_for_pilots_is_bounded_and_stays_kept_when_queries_are_few() -> None:
    every = queries(2000)
    held = held_out_queries(every)
    assert len(held) == MOST_HELD_OUT
    assert max(map(hash_share, held.texts)) < min(map(hash_share, seen_queries(every).texts))
    twice = Queries((*every.ids, "again"), (*every.texts, held.texts[0].upper()), (*every.grades, {0: 1}))
    assert "again" in held_out_queries(twice).ids  # however it is written
