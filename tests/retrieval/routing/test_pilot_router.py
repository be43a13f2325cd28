from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import ArtifactError
from coe.retrieval.routing.pilot_library import PilotLibrary, RoutingSettings
from coe.retrieval.routing.pilot_router import RetrievalRouter, build_router
from coe.retrieval.types import RetrievalReason
from tests.retrieval.pilot_data import FINGERPRINTS, LAW, MEDICINE, corner, small_library


def router(
    library: PilotLibrary, experts: tuple[str, ...] = ("law", "medicine", "bm25"), **options: bool
) -> RetrievalRouter:
    return build_router(library, base_fingerprint=FINGERPRINTS["base"], experts=experts, **options)


def test_ours_fuses_where_that_was_best_and_says_why() -> None:
    found = router(small_library()).choose(np.concatenate([corner(LAW, 2, seed=1), corner(MEDICINE, 2, seed=1)]))
    assert [decision.members for decision in found] == [("law", "bm25")] * 2 + [("medicine",)] * 2
    assert {decision.reason for decision in found} == {RetrievalReason.PILOTS}
    assert found[0].weights == (0.5, 0.5)
    assert found[0].runner_up == "law"
    assert found[0].similarity == pytest.approx(1, abs=0.1)
    assert found[0].library_version == small_library().manifest.version
    assert found[0].scores["law+bm25:0.5"] > found[0].scores["law"] > 0


def test_single_expert_routing_and_absent_experts() -> None:
    queries = corner(LAW, 2, seed=1)
    assert {d.expert for d in router(small_library(), may_fuse=False).choose(queries)} == {"law"}
    assert {d.members for d in router(small_library(), ("law",)).choose(queries)} == {("law",)}
    assert {d.expert for d in router(small_library(), ("medicine",)).choose(queries)} == {"base"}


def test_far_from_all_labels_base_serves() -> None:
    for axis in (2, 3, 4, 5):
        for decision in router(small_library()).choose(corner(axis, 4)):
            assert decision.members == ("base",)
            assert decision.reason is RetrievalReason.UNPREPARED


def test_a_margin_that_no_gain_reaches_keeps_base() -> None:
    library = small_library(RoutingSettings(margin=0.6))
    found = router(library).choose(corner(LAW, 3, seed=1))
    assert {(d.expert, d.reason) for d in found} == {("base", RetrievalReason.PLAIN)}


def test_without_a_library_base_serves() -> None:
    found = build_router(None, base_fingerprint="x", experts=("law",)).choose(corner(LAW, 2))
    assert [(d.expert, d.reason) for d in found] == [("base", RetrievalReason.ONLY)] * 2


def test_without_a_library_base_is_fused_with_bm25_if_that_is_there() -> None:
    found = build_router(None, base_fingerprint="x", experts=("words",), lexical="words").choose(corner(LAW, 2))
    assert [(d.members, d.reason) for d in found] == [(("base", "words"), RetrievalReason.UNPREPARED)] * 2
    assert [(*d.weights, *d.evidence) for d in found] == [(0.74, 0, 0.156, 0.104, 0)] * 2
    alone = build_router(None, base_fingerprint="x", experts=("words",), lexical="words", may_fuse=False)
    assert [d.members for d in alone.choose(corner(LAW, 1))] == [("base",)]


def test_another_base_and_another_dimension_are_refused() -> None:
    with pytest.raises(ArtifactError, match="made on base bbbbbbbbbbbb, this one is cccccccccccc"):
        build_router(small_library(), base_fingerprint="c" * 32, experts=())
    with pytest.raises(ArtifactError, match=r"expects \(n, 6\)"):
        router(small_library()).choose(np.zeros((1, 5), dtype=np.float32))


@given(st.integers(0, 5), st.integers(0, 10_000), st.integers(2, 6))
def test_a_batch_is_decided_as_one_by_one(axis: int, seed: int, count: int) -> None:
    queries = corner(axis, count, seed=seed)
    chosen = router(small_library())
    alone = [chosen.choose(queries[i : i + 1])[0] for i in range(count)]
    assert [d.members for d in chosen.choose(queries)] == [d.members for d in alone]
