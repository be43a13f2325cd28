from __future__ import annotations

import numpy as np
import pytest

from benchmarks.retrieval_costs import routed_scores
from coe.base.errors import DataError
from coe.retrieval.training.build_library import (
    extend_library,
    require_same_experts,
    with_settings,
    without_data_set,
)
from coe.retrieval.training.collection import Queries
from coe.retrieval.training.labels import Labelled, query_key
from coe.retrieval.training.routing_tuning import (
    PRIOR_MASSES,
    TEMPERATURES,
    best_settings,
    tuned,
    unknown_queries,
)
from coe.retrieval.types import Arm
from tests.retrieval.pilot_data import ARMS, FINGERPRINTS, LAW, MEDICINE, corner, small_library

CREATED = "2026-01-01T00:00:00+00:00"


def labelled(name: str, axis: int, scores: list[float], count: int = 6, seed: int = 0) -> Labelled:
    ids = tuple(f"{name}-{seed}-{i}" for i in range(count))
    queries = Queries(ids, ids, tuple({0: 1} for _ in ids))
    return Labelled(name, queries, corner(axis, count, seed), np.tile(scores, (count, 1)).astype(np.float32))


def parts() -> list[Labelled]:
    return [labelled("law", LAW, [0.5, 0.9, 0.4, 0.95]), labelled("medicine", MEDICINE, [0.5, 0.4, 0.8, 0.45])]


def test_keys_tell_queries_of_collections_apart() -> None:
    assert len({query_key("law", "1"), query_key("law", "2"), query_key("medicine", "1")}) == 3
    assert 0 <= query_key("law", "1") < 2**63


def test_a_library_holds_every_labelled_query() -> None:
    library = extend_library(None, parts(), ARMS, FINGERPRINTS, created_at=CREATED)
    assert library.manifest.data_sets == ("law", "medicine")
    assert library.scores.shape == (12, 4)
    assert library.measured.all()
    assert library.data_set.tolist() == [0] * 6 + [1] * 6
    with pytest.raises(DataError, match="no labelled query"):
        extend_library(None, [], ARMS, FINGERPRINTS, created_at=CREATED)


def test_an_added_expert_leaves_what_was_measured_as_it_was() -> None:
    old = extend_library(None, parts(), ARMS, FINGERPRINTS, created_at=CREATED)
    music = Arm(members=("music",), weights=(1.0,))
    again = [
        labelled("law", LAW, [0.0, 0.1]),  # base is known already: 0.0 must not replace 0.5
        labelled("music", 2, [0.5, 0.9]),
    ]
    found = extend_library(old, again, (ARMS[0], music), FINGERPRINTS | {"music": "x" * 32}, created_at=CREATED)
    np.testing.assert_array_equal(found.scores[:12, :4], old.scores)
    np.testing.assert_array_equal(found.embeddings[:12], old.embeddings)
    assert found.manifest.arms == (*ARMS, music)
    assert found.manifest.data_sets == ("law", "medicine", "music")
    assert found.scores[:6, 4].tolist() == pytest.approx([0.1] * 6)
    assert found.measured[:6, 4].all()
    assert not found.measured[6:12, 4].any()
    assert not found.measured[12:, 1:4].any()
    assert found.data_set.tolist()[12:] == [2] * 6


def test_an_expert_that_changed_or_went_is_refused() -> None:
    library = small_library()
    require_same_experts(library, FINGERPRINTS)
    with pytest.raises(DataError, match="'law' is not the one that the pilot library measured"):
        require_same_experts(library, FINGERPRINTS | {"law": "new"})
    with pytest.raises(DataError, match="bring it back, or use --rebuild"):
        require_same_experts(library, {"base": FINGERPRINTS["base"]})


def test_located_queries_are_taken_along_and_replaced() -> None:
    old = small_library()
    parts = [labelled("music", 3, [0.5, 0.1])]
    music = corner(3, 4, seed=8)
    found = extend_library(old, parts, ARMS[:2], FINGERPRINTS, created_at=CREATED, located={"music": music})
    assert found.located_in.tolist() == [LAW] * 3 + [2] * 4
    np.testing.assert_array_equal(found.located, np.concatenate([old.located, music]))
    again = extend_library(found, parts, ARMS[:2], FINGERPRINTS, created_at=CREATED, located={"music": music[:1]})
    assert again.located_in.tolist() == [LAW] * 3 + [2]
    assert without_data_set(again, "law").located_in.tolist() == [2]


def test_a_data_set_can_be_forgotten() -> None:
    found = without_data_set(small_library(), "law")
    assert set(found.data_set.tolist()) == {1}
    assert without_data_set(found, "nothing") is found


def test_settings_are_chosen_on_dev_and_never_for_the_papers_methods() -> None:
    library = small_library()
    dev = [
        labelled("law", LAW, [0.5, 0.9, 0.4, 0.95], seed=5),
        labelled("medicine", MEDICINE, [0.5, 0.4, 0.8, 0.45], seed=5),
    ]
    chosen = tuned(library, dev, FINGERPRINTS)
    for settings in (chosen.manifest.settings, chosen.manifest.single_settings):
        assert settings.temperature in TEMPERATURES
        assert settings.prior_mass in PRIOR_MASSES
    assert routed_scores(chosen, dev[0], list(FINGERPRINTS)).tolist() == pytest.approx([0.95] * 6)
    assert routed_scores(chosen, dev[0], list(FINGERPRINTS), may_fuse=False).tolist() == pytest.approx([0.9] * 6)
    assert tuned(library, [], FINGERPRINTS) is library


def test_settings_that_serve_unprepared_queries_worse_than_base_are_not_chosen() -> None:
    """Music lies between law and medicine, where every expert is worse than base on it."""
    library = small_library()
    music = labelled("music", LAW, [0.5, 0.3, 0.3, 0.3], seed=5)
    music.embeddings[:] = (music.embeddings + corner(MEDICINE, 6, seed=6)) / np.sqrt(2)
    chosen = best_settings(library, [labelled("law", LAW, [0.5, 0.9, 0.4, 0.95], seed=5), music], FINGERPRINTS, True)
    foreign = routed_scores(with_settings(library, chosen), music, list(FINGERPRINTS))
    assert foreign.mean() >= 0.5 - 1e-6


def test_pilots_of_a_collection_tell_how_it_is_served_when_unknown() -> None:
    library = small_library(per_domain=8)
    dev = labelled("law", LAW, [0.5, 0.9, 0.4, 0.95], seed=5)
    embeddings, scores = unknown_queries(library, dev)
    np.testing.assert_array_equal(embeddings, np.concatenate([dev.embeddings, library.embeddings[:8]]))
    np.testing.assert_array_equal(scores, np.concatenate([dev.scores, library.scores[:8]]))
    library.measured[3, 2] = False  # an expert that came later and was not measured there
    assert len(unknown_queries(library, dev)[0]) == 6 + 7
    assert len(unknown_queries(library, labelled("music", 3, [0.5] * 4))[0]) == 6


def test_an_unprepared_domain_is_never_served_worse_than_by_base() -> None:
    library = small_library()
    stranger = labelled("music", 3, [0.5, 0.2, 0.2, 0.2])
    assert routed_scores(library, stranger, list(FINGERPRINTS)).tolist() == [0.5] * 6
