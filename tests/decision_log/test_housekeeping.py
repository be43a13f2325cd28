from __future__ import annotations

import time

import pytest

from coe.base.errors import StoreError
from coe.decision_log import housekeeping as housekeeping_module
from coe.decision_log.database import Database
from coe.decision_log.housekeeping import DAY_S, Housekeeper
from coe.decision_log.sql_removal import Removal, Removed
from tests.decision_log.running_log import make_record
from tests.waiting import until

DATABASES = ("sqlite",)


def write_old_and_new(store: Database) -> None:
    now = time.time()
    ages = {0: 3 * DAY_S, 1: 1 * DAY_S}
    store.write_decisions([make_record(seq).model_copy(update={"at": now - age}) for seq, age in ages.items()])


async def test_what_is_past_its_time_goes(store: Database) -> None:
    write_old_and_new(store)
    await Housekeeper(store, keep_days=2.0).look()
    assert store.count() == 1
    assert store.get_decision("r1-1") is not None


async def test_a_database_that_is_away_only_delays_it(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping_module, "LOOK_EVERY_S", 0.01)
    faults: list[Exception] = [RuntimeError("unforeseen"), StoreError("away", is_retryable=True)]
    real = Removal.prune

    def prune(removal: Removal, before: float, at: float) -> Removed:
        if faults:
            raise faults.pop()
        return real(removal, before, at)

    monkeypatch.setattr(Removal, "prune", prune)
    write_old_and_new(store)
    keeper = Housekeeper(store, keep_days=2.0)
    await keeper.start()
    await until(lambda: store.count() == 1)
    await keeper.aclose()
    assert faults == []
