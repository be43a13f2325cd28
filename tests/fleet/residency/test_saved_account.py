"""The account of a scheduler as text: what another process goes on with, whatever its engines are."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from coe.fleet.residency.demand import ROWS_PER_CATEGORY
from coe.fleet.residency.memory import Memory
from coe.fleet.residency.policies import Regret, Terms
from coe.fleet.residency.saved_account import account_text, take_account
from coe.fleet.residency.scheduler import ResidencyPolicy, Scheduler
from tests.fleet.residency.driver import resident


def scheduler_of(names: str) -> tuple[Scheduler, Regret]:
    residents = tuple(resident(name) for name in names)
    policy = Regret(residents, 0.0, Terms(memory_s=300))
    return Scheduler(residents, Memory({"0": 100.0}), policy), policy


def saved() -> str:
    """Of engines a and b: 20 requests over two hours, of which some qualities differ, and a start that was measured."""
    scheduler, policy = scheduler_of("ab")
    for number in range(20):
        policy.demand.note(300.0 * number, "maths", np.array([0.5 + number / 100, 0.25]), lost=0.1, begins=True)
    scheduler.measured("b", cold_start_s=123.0)
    return account_text(scheduler)


def test_the_same_engines_go_on_as_if_nothing_had_ended() -> None:
    scheduler, policy = scheduler_of("ab")
    take_account(scheduler, saved())
    assert account_text(scheduler) == saved()
    category = policy.demand.categories["maths"]
    assert category.rows.maxlen == ROWS_PER_CATEGORY
    assert category.rows[-1].tolist() == pytest.approx([0.69, 0.25])
    assert np.isfinite(category.by_hour).sum() == 1
    assert np.isnan(category.by_hour).sum() == 23


def test_other_engines_have_their_own_columns_and_new_ones_none() -> None:
    scheduler, policy = scheduler_of("bca")
    take_account(scheduler, saved())
    assert policy.demand.categories["maths"].rows[-1].tolist() == pytest.approx([0.25, 0.0, 0.69])
    assert [each.times.cold_start_s == 123.0 for each in scheduler.residents] == [True, False, False]


def test_fields_of_a_newer_account_are_left_out_and_a_policy_without_demand_takes_the_times() -> None:
    newer = json.loads(saved())
    newer["categories"]["maths"]["later"] = 1
    scheduler, _ = scheduler_of("ab")
    take_account(scheduler, json.dumps(newer))
    assert account_text(scheduler) == saved()
    fixed = Scheduler((resident("b"),), Memory({"0": 100.0}), ResidencyPolicy())
    take_account(fixed, saved())
    assert fixed.residents[0].times.cold_start_s == 123.0
    assert json.loads(account_text(fixed))["categories"] == {}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"times": {}}', '{"times": {}, "engines": [], "categories": {"a": {"rows": 1}}}']
)
def test_a_damaged_account_is_left_out_with_a_warning(text: str, caplog: pytest.LogCaptureFixture) -> None:
    scheduler, policy = scheduler_of("ab")
    with caplog.at_level(logging.WARNING):
        take_account(scheduler, text)
    assert "the account that was kept cannot be read" in caplog.text
    assert policy.demand.categories == {}
