from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.chaos import run_chaos
from benchmarks.chaos_history import PAUSE_S, WINDOW_S, Answer, Kill, Row, Victim, check, planned_kills
from coe.router.config.log import Durability


def answer(number: int, ended_at_s: float, gateway: Victim = Victim.GATEWAY_0) -> Answer:
    return Answer(f"d{number}", f"q{number}", gateway, ended_at_s - 0.1, ended_at_s)


def row(number: int, **changes: object) -> Row:
    return Row(f"d{number}", f"q{number}", "r", number)._replace(**changes)


def test_the_plan_follows_from_the_seed() -> None:
    plan = planned_kills(3, 60)
    assert plan == planned_kills(3, 60)
    assert plan != planned_kills(4, 60)
    assert {kill.victim for kill in plan[:5]} == set(Victim)
    times = [0.0, *(kill.at_s for kill in plan)]
    assert all(PAUSE_S[0] <= later - sooner <= PAUSE_S[1] for sooner, later in pairwise(times))
    assert times[-1] < 60


def test_a_history_that_was_kept() -> None:
    verdict = check([answer(1, 1.0), answer(2, 2.0)], [row(1), row(2), row(3)], [], window_s=0.0)
    assert verdict.is_kept
    assert (verdict.answers, verdict.rows) == (2, 3)


@pytest.mark.parametrize(
    ("ended_at_s", "gateway", "is_excused"),
    [
        (9.5, Victim.GATEWAY_0, True),  # half a second before the kill at 10
        (10.05, Victim.GATEWAY_0, True),  # its end was read after the kill, but it was asked before
        (8.9, Victim.GATEWAY_0, False),  # too long before
        (10.2, Victim.GATEWAY_0, False),  # asked after the kill: of the next life
        (9.5, Victim.GATEWAY_1, False),  # that gateway was not killed
    ],
)
def test_a_lost_answer_is_excused_only_within_the_window_before_a_kill_of_its_gateway(
    ended_at_s: float, gateway: Victim, is_excused: bool
) -> None:
    lost, kills = answer(1, ended_at_s, gateway), [Kill(10.0, Victim.GATEWAY_0), Kill(10.0, Victim.REDIS)]
    verdict = check([lost], [], kills, window_s=1.0)
    assert verdict.excused == ((lost,) if is_excused else ())
    assert verdict.lost == (() if is_excused else (lost,))
    assert verdict.is_kept is is_excused
    assert check([lost], [], kills, window_s=0.0).lost == (lost,)


def test_rows_that_are_there_twice() -> None:
    asked = check([], [row(1), row(2, request_id="q1")], [], window_s=0.0)
    assert (asked.twice_asked, asked.is_kept) == (("q1",), False)
    numbered = check([], [row(1), row(2, seq=1)], [], window_s=0.0)
    assert (numbered.twice_numbered, numbered.is_kept) == ((("r", 1),), False)


@pytest.mark.slow
@pytest.mark.parametrize("durability", list(Durability))
async def test_check_32_chaos(durability: Durability, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WINDOW_S, Durability.ASYNC, 5.0)  # rows are written late where other work takes the machine
    outcome = await run_chaos(tmp_path, seed=5, seconds=15.0, durability=durability)
    assert outcome.problems == []
    assert outcome.verdict.answers > 100
    assert {kill.victim for kill in outcome.kills} == set(Victim)
