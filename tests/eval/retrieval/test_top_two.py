"""The two best experts fused: who they are, the fusion itself, and the lead below which they are."""

from __future__ import annotations

import numpy as np
import pytest

from eval.retrieval.situation import Situation
from eval.retrieval.top_two import TopTwo, best_lead, reciprocal, searched_once, top_two
from retrieval.training.collection import Queries
from retrieval.training.labels import Labelled
from tests.retrieval.pilot_data import ARMS, LAW, MEDICINE, corner, small_library, unit

FOUND = {"base": [9, 8, 7], "law": [1, 2, 3], "medicine": [2, 4, 1]}
EXPERTS = ("base", "law", "medicine")


def rankings(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same for two queries."""
    return [(np.array(FOUND[name]), np.zeros(3))] * 2


def queries(embeddings: np.ndarray) -> Labelled:
    n = len(embeddings)
    asked = Queries(tuple(f"q{i}" for i in range(n)), ("what?",) * n, ({2: 1},) * n)
    return Labelled("law", asked, embeddings, np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (n, 1)))


def test_ranks_are_added_as_reciprocals() -> None:
    first, second = ((np.array(FOUND[name]), np.zeros(3)) for name in ("law", "medicine"))
    # 2: 1/62 + 1/61; 1: 1/61 + 1/63; 4: 1/62; 3: 1/63
    assert reciprocal([first, second]) == [2, 1, 4, 3]
    assert reciprocal([(np.arange(20), np.zeros(20))]) == list(range(10))


def test_the_two_nearest_experts_are_fused_where_the_lead_is_small() -> None:
    between = unit(np.eye(6)[[LAW]] + 0.999 * np.eye(6)[[MEDICINE]])
    asked = queries(np.concatenate([corner(LAW, 1), between]))
    found = top_two(rankings, asked, Situation(small_library(), EXPERTS, ARMS))
    assert found is not None
    np.testing.assert_allclose(found.single, [0.2, 0.2])
    np.testing.assert_allclose(found.fused, [1.0, 1.0])  # document 2 stands first in the fusion of law and medicine
    assert found.lead[0] > 0.5 > 0.05 > found.lead[1]
    np.testing.assert_allclose(found.scores(0.05), [0.2, 1.0])
    np.testing.assert_allclose(found.scores(0.0), [0.2, 0.2])


def test_without_a_library_or_a_second_expert_there_is_no_pair() -> None:
    asked = queries(corner(LAW, 1))
    assert top_two(rankings, asked, Situation(None, EXPERTS, ARMS)) is None
    assert top_two(rankings, asked, Situation(small_library(), ("base",), ARMS)) is None


@pytest.mark.parametrize(("fused", "wanted"), [([0.9, 0.9], np.inf), ([0.9, 0.1], 0.02), ([0.1, 0.1], 0.0)])
def test_dev_queries_choose_the_lead(fused: list[float], wanted: float) -> None:
    found = TopTwo(np.array([0.5, 0.5]), np.array(fused), np.array([0.01, 0.3]))
    assert best_lead([found, TopTwo(np.zeros(0), np.zeros(0), np.zeros(0))]) == wanted
    assert best_lead([]) == 0.0


def test_an_expert_searches_once_and_only_when_it_is_asked_for() -> None:
    asked: list[str] = []

    class Searches:
        def rankings(self, name: str, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
            asked.append(name)
            return rankings(name)

    found = searched_once(Searches(), queries(corner(LAW, 2)))  # type: ignore[arg-type]
    assert asked == []
    assert found("law") is found("law")
    assert asked == ["law"]
