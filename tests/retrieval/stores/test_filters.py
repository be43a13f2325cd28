"""Filters on attributes, against what each operator means."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.retrieval.stores.filters import Comparison, Compound, fault_of, matches

NUMBERS = st.integers(-3, 3) | st.floats(-3, 3)
ORDERS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


@pytest.mark.parametrize("name", ORDERS)
@given(held=NUMBERS, value=NUMBERS)
def test_orders_are_those_of_numbers(name: str, held: float, value: float) -> None:
    condition = Comparison.model_validate({"type": name, "key": "n", "value": value})
    assert matches(condition, {"n": held}) == ORDERS[name](held, value)


@given(held=st.sampled_from(["a", "b", 1, 1.0, True, False, 0]), value=st.sampled_from(["a", "b", 1, True, 0]))
def test_ne_is_the_opposite_of_eq_and_in_of_nin(held: object, value: object) -> None:
    def verdict(kind: str, wanted: object) -> bool:
        return matches(Comparison.model_validate({"type": kind, "key": "k", "value": wanted}), {"k": held})

    assert verdict("eq", value) != verdict("ne", value)
    assert verdict("in", [value, "z"]) == verdict("eq", value)
    assert verdict("nin", [value, "z"]) == verdict("ne", value)


def test_true_is_not_one_and_a_missing_attribute_matches_negations_only() -> None:
    def condition(kind: str, value: object) -> Comparison:
        return Comparison.model_validate({"type": kind, "key": "k", "value": value})

    assert not matches(condition("eq", True), {"k": 1})
    assert not matches(condition("eq", "x"), {})
    assert not matches(condition("lt", 5), {})
    assert not matches(condition("lt", 5), {"k": "4"})
    assert matches(condition("ne", "x"), {})
    assert matches(condition("nin", ["x"]), {})


def test_compound_filters_nest() -> None:
    red = Comparison(type="eq", key="colour", value="red")
    big = Comparison(type="gt", key="size", value=10)
    both = Compound(
        type="and", filters=(red, Compound(type="or", filters=(big, Comparison(type="eq", key="old", value=True))))
    )
    assert matches(both, {"colour": "red", "size": 11})
    assert matches(both, {"colour": "red", "size": 1, "old": True})
    assert not matches(both, {"colour": "blue", "size": 11})


def test_nesting_has_a_limit() -> None:
    condition: Comparison | Compound = Comparison(type="eq", key="a", value=1)
    for _ in range(8):
        condition = Compound(type="or", filters=(condition,))
    assert "more than 8 deep" in (fault_of(condition) or "")
