"""The further arms of the retrieval benchmark: RouterRetriever's choice, and the multi-task expert."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.retrieval_arms import FurtherArms, Multitask, choose, pilots_of
from tests.benchmarks.retrieval_eval.test_plain_arms import MEASURED, RISING, SITUATION, TEST
from tests.retrieval.pilot_data import LAW, MEDICINE, corner, small_library


@pytest.mark.parametrize("over", [np.mean, np.max])
def test_each_corner_goes_to_its_winner(over: np.ufunc) -> None:
    queries = np.concatenate([corner(LAW, 3, seed=1), corner(MEDICINE, 3, seed=1)])
    assert choose(small_library(), [0, 1, 2], queries, over).tolist() == [1] * 3 + [2] * 3


def test_ties_are_labelled_with_the_first_expert() -> None:
    scores = np.array([[0.5, 0.5, 0.2], [0.1, 0.3, 0.3], [0.0, 0.9, 0.1]], dtype=np.float32)
    measured = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1]], dtype=bool)
    numbers = np.zeros(3, dtype=np.int64)
    library = replace(small_library(), scores=scores, measured=measured, data_set=numbers, embeddings=corner(LAW, 3))
    assert pilots_of(library, [0, 1, 2])[1].tolist() == [0, 1, 2]


def test_one_centroid_per_data_set_and_winner() -> None:
    library = small_library()
    pilots, owner = pilots_of(library, [0, 1, 2])
    assert owner.tolist() == [1, 2]
    expected = library.embeddings[:8].mean(axis=0)
    np.testing.assert_allclose(pilots[0], expected / np.linalg.norm(expected), rtol=1e-5)


def test_mean_and_largest_differ_where_an_expert_has_several_pilots() -> None:
    library = small_library()
    library.scores[8:, 0] = 0.9  # base wins on medicine
    library.scores[4:8, 0] = 1.0  # and on half of the law queries, whose other half the law expert wins
    library.embeddings[4:8] = corner(5, 4)
    between = corner(MEDICINE, 1) + 0.8 * corner(LAW, 1)
    assert choose(library, [0, 1], between, np.mean).tolist() == [1]
    assert choose(library, [0, 1], between, np.max).tolist() == [0]


def test_the_multi_task_expert_is_absent_where_its_own_collection_is_unknown() -> None:
    own = Multitask(np.full(3, 0.9, dtype=np.float32), RISING, RISING / 2)
    met, unknown = (FurtherArms({"law": own}, trained)(TEST, SITUATION, MEASURED) for trained in ({"tax"}, {"law"}))
    assert met.scores["multitask"].tolist() == own.alone.tolist()
    assert met.scores["multitask_hybrid"].tolist() == (RISING / 2)[:, -1].tolist()
    assert met.scores["hybrid_collection"].tolist() == RISING[:, 1].tolist()
    assert {"multitask", "multitask_hybrid"}.isdisjoint(unknown.scores)
