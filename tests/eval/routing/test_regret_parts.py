"""The four parts of regret sum exactly to the whole, whatever was chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval.routing.arm_records import REGRET_CHOICES, REGRET_PARTS, regret_columns, regret_parts
from eval.routing.baselines import category_oracle, query_oracle

N, M = 12, 4
SCORES = arrays(np.float32, (N, M), elements=st.floats(0, 1, width=32))
EXPERTS = arrays(np.int64, N, elements=st.integers(0, M - 1))
CATEGORIES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=N, max_size=N)


@given(SCORES, CATEGORIES, EXPERTS, EXPERTS, EXPERTS)
def test_the_parts_sum_to_the_whole_overall_and_per_category(
    scores: np.ndarray, categories: list[str], mapped: np.ndarray, decided: np.ndarray, served: np.ndarray
) -> None:
    chosen = {
        "query_oracle": query_oracle(scores, np.full(M, np.nan)),
        "category_oracle": category_oracle(scores, categories),
        "map_true": mapped,
        "router": decided,
        "served": served,
    }
    columns = regret_columns(scores.astype(np.float64), chosen)
    labels = np.array(categories)
    for rows in [np.ones(N, dtype=bool), *(labels == name for name in set(categories))]:
        inside = columns[rows]
        means = regret_parts(inside).mean(axis=0)
        whole = inside[:, 0].mean() - inside[:, -1].mean()
        assert means.sum() == pytest.approx(whole, abs=1e-12)
        assert means[REGRET_PARTS.index("beyond_categories")] >= 0


def test_each_part_is_charged_to_its_own_choice() -> None:
    scores = np.array([[1.0, 0.75, 0.5, 0.25]])
    experts = {name: np.array([min(i, 3)]) for i, name in enumerate(REGRET_CHOICES)}
    columns = regret_columns(scores, experts)
    assert dict(zip(REGRET_PARTS, regret_parts(columns)[0], strict=True)) == {
        "beyond_categories": 0.25,
        "map": 0.25,
        "classifier": 0.25,
        "serving": 0.0,
    }
