"""Changes of routing where a router took over from another."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

from eval.log.rates import gap, quality
from eval.log.traffic import Traffic
from eval.log.traffic_records import Moved, Switch

SHOWN_MOVES = 12
MIN_MOVE = 0.02
"""Share of a category's traffic that must have changed its expert to be shown (ours)."""


def measure_switches(traffic: Traffic) -> tuple[Switch, ...]:
    """One per version after the first, in the order in which they began to serve.

    What is compared is all traffic of a version with all of the one that began before it.
    """
    routed = traffic.rows(traffic.is_routed)
    first_at: dict[str, float] = {}
    for at, version in zip(routed.at, routed.version, strict=True):
        first_at.setdefault(version, float(at))
    versions = list(first_at)
    return tuple(switch(routed, one, two, first_at[two]) for one, two in pairwise(versions))


def switch(routed: Traffic, before: str, after: str, at: float) -> Switch:
    old, new = routed.rows(routed.version == before), routed.rows(routed.version == after)
    was, became = quality(old), quality(new)
    return Switch(
        at=at,
        before=before,
        after=after,
        n_before=len(old),
        n_after=len(new),
        n_overlap=int((old.at >= at).sum()),
        quality_before=was,
        quality_after=became,
        quality=gap(became, was),
        moved=moves(old, new),
    )


def moves(old: Traffic, new: Traffic) -> tuple[Moved, ...]:
    """Categories whose experts changed, those with the most traffic moved first."""
    found = []
    for category in sorted(set(old.category) | set(new.category)):
        was, became = old.rows(old.category == category), new.rows(new.category == category)
        before, after = expert_shares(was), expert_shares(became)
        change = sum(abs(after.get(name, 0) - before.get(name, 0)) for name in {*before, *after}) / 2
        if change < MIN_MOVE or not len(was) or not len(became):
            continue
        moved = Moved(
            category=category,
            n_before=len(was),
            n_after=len(became),
            before=before,
            after=after,
            quality=gap(quality(became), quality(was)),
        )
        found.append((change * len(became), moved))
    found.sort(key=lambda pair: -pair[0])
    return tuple(moved for _, moved in found[:SHOWN_MOVES])


def expert_shares(traffic: Traffic) -> dict[str, float]:
    counts = Counter(np.asarray(traffic.expert).tolist())
    return {name: count / len(traffic) for name, count in counts.most_common()}
