"""Requests of real clients over days, each client with a category of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coe.fleet.residency.demand import Float64Array

IntArray = NDArray[np.int64]
Trace = Mapping[str, tuple[Float64Array, Float64Array]]
DAY_S = 86400.0
WINDOW_S = 600.0
"""Length of the trace's windows."""

RATE_S = 60.0
"""So often the rates of categories are told."""

BURSTINESS = (0.3, 8.0)
"""Least and greatest coefficient of variation of a client's gaps."""


@dataclass(frozen=True)
class Arrivals:
    """n requests in order of time: when, of which category, and how much service each takes (mean 1).

    `rates` (t, k) are the requests per second of each category that these were drawn with, one row for each `RATE_S`
    from `rates_from_s` on.
    """

    at_s: Float64Array
    category: IntArray
    work: Float64Array
    rates: Float64Array
    rates_from_s: float = 0.0


@dataclass(frozen=True)
class Draw:
    """Arrivals to draw.

    Args:
        days: first and last of the trace.
        odds: (k,) of the category of a client.
        per_s: mean requests per second, to which the clients are scaled.
        clients: how many of those present; None: all.
        drifts: each client changes its category halfway.
    """

    days: tuple[float, float]
    odds: Float64Array
    per_s: float
    clients: int | None = None
    drifts: bool = False


def load_trace(file: Path) -> Trace:
    """Client -> start of its windows (s), and their requests per second and burstiness (2, w)."""
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    clients = np.array(table["client"].to_pylist())
    start = table["start_s"].to_numpy().astype(float)
    rates = np.stack([table["requests_per_s"].to_numpy(), table["cv"].to_numpy()]).astype(float)
    return {str(each): (start[clients == each], rates[:, clients == each]) for each in np.unique(clients)}


def draw_arrivals(trace: Trace, wanted: Draw, seed: int) -> Arrivals:
    """Arrivals with the rates and burstiness of the trace's clients, each of which has one category."""
    rng = np.random.default_rng(seed)
    first_s, last_s = (day * DAY_S for day in wanted.days)
    inside = {name: (at >= first_s) & (at < last_s) for name, (at, _) in trace.items()}
    present = [name for name, chosen in inside.items() if chosen.any()]
    chosen = [present[number] for number in rng.permutation(len(present))[: wanted.clients]]
    total = sum(float(trace[name][1][0, inside[name]].sum()) * WINDOW_S for name in chosen)
    scale = wanted.per_s * (last_s - first_s) / total
    times, categories = [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    told_s = np.arange(first_s, last_s, RATE_S)
    told = np.zeros((len(told_s), len(wanted.odds)))
    change_s = (first_s + last_s) / 2 if wanted.drifts else np.inf
    for name in chosen:
        own = rng.choice(len(wanted.odds), size=2, p=wanted.odds)
        at, rates = trace[name][0][inside[name]], trace[name][1][:, inside[name]]
        found = times_of(at, rates, scale, rng)
        categories.append(own[(found > change_s).astype(int)])
        times.append(found)
        window = np.searchsorted(at, told_s, side="right") - 1
        now = np.where((window >= 0) & (told_s < at[window] + WINDOW_S), rates[0, window] * scale, 0.0)
        told[np.arange(len(told_s)), own[(told_s > change_s).astype(int)]] += now
    when = np.concatenate(times)
    order = np.argsort(when, kind="stable")
    work = rng.lognormal(-0.5, 1.0, size=len(when))
    return Arrivals(when[order], np.concatenate(categories)[order], work, told, first_s)


def times_of(at_s: Float64Array, rates: Float64Array, scale: float, rng: np.random.Generator) -> Float64Array:
    """Times of one client's requests: a renewal process with gamma gaps, at the rates of its windows (2, w)."""
    expected = np.concatenate([[0.0], np.cumsum(rates[0]) * WINDOW_S * scale])
    variance = float(np.clip(np.median(rates[1]), *BURSTINESS)) ** 2
    n = int(expected[-1] * 1.5 + 20 * (1 + variance))
    points = np.cumsum(rng.gamma(1 / variance, variance, size=n)) - rng.uniform()
    points = points[(points > 0) & (points < expected[-1])]
    return np.asarray(np.interp(points, expected, np.append(at_s, at_s[-1] + WINDOW_S)))
