"""Amounts of money on pages and in reports."""

from __future__ import annotations

import pytest

from coe.base.money import money

SHOWN = {
    0.0: "$0",
    0.0000031: "$0.0000031",
    0.0000764: "$0.0000764",
    0.012: "$0.012",
    0.04321: "$0.0432",
    12.3: "$12.30",
    1234: "$1,234.00",
    -1234.5: "\u2212$1,234.50",
}


@pytest.mark.parametrize("amount", SHOWN)
def test_an_amount_shows_the_digits_that_tell_something(amount: float) -> None:
    assert money(amount) == SHOWN[amount]
