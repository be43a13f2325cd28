"""ADWIN against river's values, and its properties."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision_log.drift import MAX_BUCKETS, Adwin, Alarm

# What river 0.26.1 finds on the streams below: (value number, width after the cut, mean after it) of every alarm, then
# width, mean and sum of squared deviations at the end. `from river.drift import ADWIN; a = ADWIN(); a.update(x)`.
RIVER = {
    "bits-1": ([(1631, 480, 0.70625)], 2368, 0.5519425675675675, 585.6110641891893),
    "bits-2": ([(1599, 1344, 0.774553571)], 2400, 0.5554166666666667, 592.6295833333347),
    "still-1": ([], 4000, 0.7, 839.9999999999992),
    "still-2": ([], 4000, 0.6995, 840.7990000000003),
    "ramp-1": (
        [(1087, 960, 0.359990025), (2175, 960, 0.47034603), (3199, 896, 0.578807607)],
        800,
        0.6610029966412706,
        8.341124697284856,
    ),
    "ramp-2": (
        [(959, 832, 0.353264305), (2047, 960, 0.454096297), (2975, 800, 0.561091512), (3999, 896, 0.653015084)],
        896,
        0.6530150844485985,
        9.473604866624974,
    ),
    "steps-1": ([(735, 224, 0.212328872), (1503, 256, 0.58272953)], 696, 0.6965313904250071, 2.3060461698922476),
    "steps-2": ([(735, 352, 0.181485602), (1503, 384, 0.56509193)], 696, 0.7009046396320661, 2.1246538531450048),
}


def stream(kind: str, seed: int) -> list[float]:
    draw = random.Random(seed)
    if kind == "bits":
        return [float(draw.random() < (0.8 if i < 1500 else 0.55)) for i in range(4000)]
    if kind == "still":
        return [float(draw.random() < 0.7) for _ in range(4000)]
    if kind == "ramp":
        return [min(max(draw.gauss(0.3 + 0.4 * i / 4000, 0.1), 0), 1) for i in range(4000)]
    parts = ((700, 0, 0.3), (700, 0.1, 0.9), (800, 0.6, 0.8))
    return [draw.uniform(low, high) for n, low, high in parts for _ in range(n)]


@pytest.mark.parametrize("name", RIVER)
def test_alarms_and_windows_are_rivers(name):
    kind, seed = name.split("-")
    hits, width, mean, spread = RIVER[name]
    alarm, found = Alarm(), []
    for value in stream(kind, int(seed)):
        window = alarm.window
        if alarm.update(value):
            found.append((alarm.changes[-1].index, window.width, pytest.approx(window.mean, abs=1e-9)))
    assert found == hits
    # river starts anew at the value after an alarm, so an alarm at the very end leaves its window standing.
    last = window if hits and hits[-1][0] == alarm.n - 1 else alarm.window
    assert (last.width, last.mean, last.spread) == (width, pytest.approx(mean), pytest.approx(spread))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=400))
def test_the_window_is_the_end_of_the_stream(values):
    adwin = Adwin()
    for value in values:
        adwin.update(value)
    kept = np.array(values[len(values) - adwin.width :])
    assert adwin.mean == pytest.approx(kept.mean(), abs=1e-9)
    assert adwin.spread == pytest.approx(((kept - kept.mean()) ** 2).sum(), abs=1e-7)
    assert all(len(row) <= MAX_BUCKETS for row in adwin.rows)


def test_a_still_stream_rarely_alarms():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(40):
        alarm = Alarm()
        for value in rng.random(1000):
            alarm.update(float(value))
        alarms += bool(alarm.changes)
    assert alarms <= 2  # delta is 0.002 a check, and the bound is loose


def test_a_change_says_from_where_to_where():
    alarm = Alarm()
    for value in [0.9] * 300 + [0.2] * 100:
        alarm.update(value)
    change = alarm.changes[0]
    assert 300 < change.index < 340
    assert (change.before, change.after) == (pytest.approx(0.9, abs=0.02), pytest.approx(0.2, abs=0.1))
