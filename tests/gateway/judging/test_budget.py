"""The budget of a judge on a clock of our own."""

from coe.gateway.judge import Budget


def test_samples_of_an_hour_and_dollars_of_a_day():
    now = 0.0
    budget = Budget(2, 1.0, lambda: now)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    now = 3599.0
    assert not budget.take()
    now = 3600.0
    assert budget.take()
    budget.spend(0.6)
    assert budget.has_money()
    now = 7300.0
    budget.spend(0.6)
    assert (budget.has_money(), budget.take()) == (False, False)
    now = 3600.0 + 86_400.0  # the first spending is a day old
    assert budget.take()


def test_a_day_that_has_cost_all_of_its_dollars_has_none_left():
    budget = Budget(1000, 1.0, lambda: 0.0)
    for usd, is_left in ((0.75, True), (0.25, False)):
        budget.spend(usd)
        assert (budget.has_money(), budget.take()) == (is_left, is_left)


def test_what_is_free_costs_nothing():
    budget = Budget(1000, 1e-9, lambda: 0.0)
    for _ in range(50):
        budget.spend(0.0)
        assert budget.take()
