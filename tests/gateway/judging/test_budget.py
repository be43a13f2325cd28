"""The budget of a judge on a clock of our own."""

from coe.gateway.chat.judge import Budget


def test_dollars_of_a_day():
    now = 0.0
    budget = Budget(1.0, lambda: now)
    budget.spend(0.6)
    assert budget.has_money()
    now = 7300.0
    budget.spend(0.6)
    assert not budget.has_money()
    now = 86_400.0  # the first spending is a day old
    assert budget.has_money()


def test_a_day_that_has_cost_all_of_its_dollars_has_none_left():
    budget = Budget(1.0, lambda: 0.0)
    for usd, is_left in ((0.75, True), (0.25, False)):
        budget.spend(usd)
        assert budget.has_money() is is_left


def test_what_is_free_costs_nothing():
    budget = Budget(1e-9, lambda: 0.0)
    for _ in range(50):
        budget.spend(0.0)
        assert budget.has_money()
