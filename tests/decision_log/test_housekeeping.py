from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from coe.base.errors import StoreError
from coe.decision_log import housekeeping as housekeeping_module
from coe.decision_log.database import Database
from coe.decision_log.housekeeping import DAY_S, Housekeeper
from coe.decision_log.sql_removal import Removal
from coe.decision_log.tombstones import subject_hash
from tests.decision_log.running_log import make_record
from tests.waiting import until

DATABASES = ("sqlite",)


class Memory:
    """Notes what it is told to forget."""

    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []

    def forget(self, erased: Mapping[str, float]) -> int:
        self.told.append(dict(erased))
        return 0


async def test_an_erasure_is_told_once(store: Database) -> None:
    memory = Memory()
    keeper = Housekeeper(store, memory, keep_days=None)
    now = time.time()
    await keeper.look()
    Removal(store).erase({"me"}, now)
    await keeper.look()
    await keeper.look()
    Removal(store).erase({"me"}, now + 1)
    await keeper.look()
    assert memory.told == [{subject_hash("me"): now}, {subject_hash("me"): now + 1}]


async def test_an_erasure_by_a_clock_that_is_behind_is_told_too(store: Database) -> None:
    memory = Memory()
    keeper = Housekeeper(store, memory, keep_days=None)
    now = time.time()
    for subject, at in (("me", now), ("you", now - 60)):
        Removal(store).erase({subject}, at)
        await keeper.look()
    assert memory.told == [{subject_hash("me"): now}, {subject_hash("you"): now - 60}]


@pytest.mark.parametrize(("keep_days", "left"), [(None, 2), (2.0, 1)])
async def test_what_is_past_its_time_goes(keep_days: float | None, left: int, store: Database) -> None:
    now = time.time()
    ages = {0: 3 * DAY_S, 1: 1 * DAY_S}
    store.write_decisions([make_record(seq).model_copy(update={"at": now - age}) for seq, age in ages.items()])
    await Housekeeper(store, Memory(), keep_days=keep_days).look()
    assert store.count() == left
    assert store.get_decision("r1-1") is not None


async def test_a_database_that_is_away_only_delays_it(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping_module, "LOOK_EVERY_S", 0.01)
    faults: list[Exception] = [RuntimeError("unforeseen"), StoreError("away", is_retryable=True)]
    real = Removal.erased_since

    def look(removal: Removal, at: float) -> dict[str, float]:
        if faults:
            raise faults.pop()
        return real(removal, at)

    monkeypatch.setattr(Removal, "erased_since", look)
    memory = Memory()
    keeper = Housekeeper(store, memory, keep_days=None)
    Removal(store).erase({"me"}, time.time())
    await keeper.start()
    await until(lambda: bool(memory.told))
    await keeper.aclose()
    assert faults == []
