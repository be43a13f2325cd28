"""Bets on challengers: their reference values, and that nobody wins by them who is not better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.training.bets import (
    CHALLENGER_EVIDENCE,
    MAX_STAKE,
    PLANNED_GAIN_SHARES,
    PROMOTION_EVIDENCE,
    Bets,
    bets_on,
    capital_of,
    means_before,
)
from coe.training.change_points import ChangePoint
from coe.training.log_table import LogTable
from tests.gateway.small_router import EXPERTS
from tests.training.small_log import ROWS, log_table

RUBY, EMERALD, PLAIN = (EXPERTS.index(name) for name in ("ruby", "emerald", "plain"))
SERVING, FREE = np.full(3, RUBY), np.zeros((3, 3))


def bets(
    log: LogTable, *, prices: np.ndarray = FREE, since: float = 0.0, changes: tuple[ChangePoint, ...] = ()
) -> Bets:
    return bets_on(log, ROWS, EXPERTS, SERVING, prices, since, changes)


def drawn(
    rng: np.random.Generator,
    n: int,
    rates: tuple[float, float],
    *,
    share: float = 0.5,
    row: str = "red",
    **more: object,
) -> LogTable:
    """n answers, of emerald with that chance, liked by the rates of ruby and of emerald."""
    is_rival = rng.random(n) < share
    reward = (rng.random(n) < np.where(is_rival, rates[1], rates[0])).astype(float)
    chances = {"challenger_chance": np.full(n, share), "planned_chance": np.full(n, 1 - share)}
    return log_table([row] * n, np.where(is_rival, "emerald", "ruby").tolist(), reward.tolist(), **chances | more)


def test_bets_have_their_reference_values() -> None:
    chances = {"challenger_chance": np.array([0.8, 0.8, 0.5]), "planned_chance": np.array([0.2, 0.2, 0.5])}
    found = bets(log_table(["red"] * 3, ["emerald", "ruby", "emerald"], [1.0, 1.0, 0.0], **chances))
    usual = [0.5, (20 * 0.5 + 1) / 21, (20 * 0.5 + 2) / 22]
    gains = [(1 - usual[0]) / 0.8, -(1 - usual[1]) / 0.2, (0 - usual[2]) / 0.5]
    assert found.gain == pytest.approx(gains)
    square = [1.0, (20 + gains[0] ** 2) / 21, (20 + gains[0] ** 2 + gains[1] ** 2) / 22]
    lost = [0.5 / 0.2, usual[1] / 0.2, usual[2] / 0.5]
    pairs = list(zip(square, lost, strict=True))
    stakes = [[min(0.1 * part / each, MAX_STAKE / most) for part in PLANNED_GAIN_SHARES] for each, most in pairs]
    growth = np.log([[1 + stake * gain for stake in own] for own, gain in zip(stakes, gains, strict=True)])
    assert found.growth == pytest.approx(growth)
    assert found.capital == pytest.approx(np.exp(growth.sum(axis=0)).mean())
    assert found.capital_by_challenger == {(0, EMERALD): pytest.approx(found.capital)}


def test_a_price_and_a_weight_have_their_reference_values() -> None:
    """The price is taken off the gain and off the lead, and the most that a bet can lose counts price and weight."""
    prices = FREE.copy()
    prices[0, EMERALD] = 0.06
    found = bets(log_table(["red"], ["emerald"], [0.0], weight=np.array([3.0])), prices=prices)
    gain, worst_loss = -3 * 0.5 / 0.5 - 0.06, 3 * 0.5 / 0.5 + 0.06
    stakes = np.minimum((0.1 - 0.06) * PLANNED_GAIN_SHARES / 1.0, MAX_STAKE / worst_loss)
    assert found.gain == pytest.approx([gain])
    assert found.growth == pytest.approx(np.log1p(stakes * gain)[None])


@given(st.integers(0, 2**32))
def test_no_bet_loses_more_than_half_of_the_capital(seed: int) -> None:
    """Whatever the weights, chances, prices and predicted leads are."""
    rng, n = np.random.default_rng(seed), 30
    chance, prices = rng.uniform(0.1, 0.9, n), FREE.copy()
    prices[0, EMERALD] = rng.uniform(-0.02, 1.0)
    chances = {"challenger_chance": chance, "planned_chance": 1 - chance}
    log = drawn(rng, n, (0.5, 0.5), weight=rng.uniform(0, 10, n), estimated_gain=rng.uniform(-1, 5, n), **chances)
    assert bets(log, prices=prices).growth.min() >= np.log(0.5) - 1e-9


@given(st.integers(0, 2**32), st.integers(0, 39))
def test_a_stake_follows_from_what_came_before_its_answer(seed: int, at: int) -> None:
    """Another reward of an answer changes its gain, and neither its stakes nor any bet before it."""
    log = drawn(np.random.default_rng(seed), 40, (0.5, 0.6))
    other = log.reward.copy()
    other[at] = 1.0 - other[at]
    one, two = bets(log), bets(replace(log, reward=other))
    assert one.growth[:at].tolist() == two.growth[:at].tolist()
    assert one.gain[at] != two.gain[at]
    stakes = [np.expm1(each.growth[at]) / each.gain[at] for each in (one, two)]
    assert stakes[0] == pytest.approx(stakes[1])


def test_means_are_of_what_came_before_in_the_same_group() -> None:
    found = means_before(np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 1, 0, 0]), 0.5)
    assert found == pytest.approx([0.5, 0.5, 11 / 21, 12 / 22])


@pytest.mark.parametrize(
    "change",
    [
        {"estimated_gain": np.full(60, -0.1)},
        {"challenger": np.full(60, -1, dtype=np.int32)},
        {"planned": np.full(60, PLAIN, dtype=np.int32)},
        {"challenger_chance": np.full(60, 0.05), "planned_chance": np.full(60, 0.95)},
    ],
)
def test_what_nobody_was_ahead_in_or_hardly_tried_is_no_bet(change: dict[str, np.ndarray]) -> None:
    log = drawn(np.random.default_rng(0), 60, (0.2, 0.9))
    assert bets(log).capital > 10
    assert bets(replace(log, **change)).capital == 1.0


def test_bets_count_from_the_last_move_and_from_the_last_change_of_quality() -> None:
    log = drawn(np.random.default_rng(0), 60, (0.2, 0.9))
    fell = ChangePoint("red", "ruby", 20.0, 0.9, 0.2)
    elsewhere = ChangePoint("green", "ruby", 20.0, 0.9, 0.2)
    assert [len(bets(log, since=20.0)), len(bets(log, changes=(fell,))), len(bets(log, changes=(elsewhere,)))] == [
        40,
        40,
        60,
    ]


def test_a_price_is_taken_off_each_gain_and_a_saving_added() -> None:
    log = drawn(np.random.default_rng(1), 400, (0.5, 0.6))
    dear, cheap = FREE.copy(), FREE.copy()
    dear[0, EMERALD], cheap[0, EMERALD] = 0.3, -0.02
    free, priced, saving = (bets(log, prices=prices) for prices in (FREE, dear, cheap))
    assert priced.gain == pytest.approx(free.gain - 0.3)
    assert saving.gain == pytest.approx(free.gain + 0.02)
    assert priced.capital <= 1.0 < free.capital < saving.capital


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_nobody_wins_who_is_not_better(share: float) -> None:
    """Three challengers that are as good, whatever is predicted of them: the capital ever reaches 20 in 5% at most."""
    rng, hits = np.random.default_rng(2), 0
    for _ in range(300):
        parts = [
            drawn(rng, 300, (0.6, 0.6), share=share, row=row, estimated_gain=rng.uniform(0, 0.2, 300)) for row in ROWS
        ]
        growth = np.concatenate([bets(part).growth for part in parts]).cumsum(axis=0)
        hits += max(capital_of(each) for each in growth[::10]) >= PROMOTION_EVIDENCE
    assert hits <= 0.05 * 300


def test_a_better_challenger_moves_its_category_alone() -> None:
    rng = np.random.default_rng(3)
    better, worse = drawn(rng, 1500, (0.5, 0.75), share=0.8), drawn(rng, 600, (0.6, 0.55), share=0.8, row="green")
    both = LogTable(
        ROWS,
        EXPERTS,
        **{name: np.concatenate([getattr(better, name), getattr(worse, name)]) for name in ARRAYS},
    )
    found = bets(both)
    assert found.is_enough
    assert found.capital_by_challenger[0, EMERALD] > CHALLENGER_EVIDENCE > found.capital_by_challenger[1, EMERALD]
    assert found.moves() == {0: EMERALD}
    assert bets(worse).moves() == {}


ARRAYS = ("category", "expert", "reward", "weight", "at", "key", "is_failure", "planned", "challenger")
ARRAYS += ("planned_chance", "challenger_chance", "estimated_gain")


def test_no_key_decides_alone() -> None:
    """Forty keys that like both as well, and one that says the opposite of the others all day."""
    rng, n = np.random.default_rng(4), 2000
    log = drawn(rng, n, (0.5, 0.5), key=rng.integers(0, 40, n), max_key_share=0.2)
    loud = drawn(rng, n, (0.0, 1.0), key=np.full(n, 40), max_key_share=0.2)
    merged = {name: np.concatenate([getattr(log, name), getattr(loud, name)]) for name in ARRAYS}
    both = LogTable(ROWS, EXPERTS, **merged, max_key_share=0.2)
    assert bets(replace(both, max_key_share=1.0)).capital > PROMOTION_EVIDENCE
    found = bets(both)
    assert found.without_any_key < PROMOTION_EVIDENCE / 4
    assert found.moves() == {}


def test_too_few_keys_win_nothing() -> None:
    rng = np.random.default_rng(5)
    log = drawn(rng, 400, (0.1, 0.9), key=rng.integers(0, 4, 400), max_key_share=0.2)
    assert bets(log).capital == 1.0
    assert bets(replace(log, max_key_share=1.0)).capital > PROMOTION_EVIDENCE


def test_answers_count_by_how_rarely_their_kind_is_rated() -> None:
    """Emerald is as good, and its bad answers are rated four times as often as ruby's answers."""
    rng = np.random.default_rng(6)
    log = drawn(rng, 3000, (0.5, 0.5))
    heavy = replace(log, weight=np.where(log.expert == EMERALD, 2.0, 1.0))
    assert bets(heavy).gain[log.expert == EMERALD] == pytest.approx(2.0 * bets(log).gain[log.expert == EMERALD])
