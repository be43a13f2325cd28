"""The test of a sequence of plans, from expensive to cheap, and the certificate that states its result.

Shapes: n units, c plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from coe.eval.certify.ladder import Ladder
from coe.eval.certify.units import Units
from coe.eval.metrics.betting import LEVEL, REQUIRED_CAPITAL, capital, still_needed
from coe.eval.metrics.intervals import bootstrap_means, percentile_interval
from coe.eval.report.numbers import counted, percent, points
from coe.eval.report.page import cite
from coe.fleet.certificate import Certificate, PlanResult
from coe.router.config.policy import points_in_words
from coe.router.types import Float64Array, Metric


@dataclass(frozen=True)
class Claim:
    """The claim to test: a plan of `policy` loses at most `within` of quality against the reference of its floor."""

    policy: str
    within: float
    made_at: datetime
    valid_days: int


def shown_plans(units: Units, within: float) -> tuple[Float64Array, int]:
    """Return the capital of each plan now, and how many of the first plans are shown, as (array of shape (c,),
    count). The sequence is fixed, so a plan counts as shown only if every more expensive one is."""
    found = capital(units.gains, -within, units.worst_loss)
    odds = found[-1] if len(found) else np.ones(units.gains.shape[1])
    return odds, int(np.append(odds >= REQUIRED_CAPITAL, False).argmin())


def certificate_of(units: Units, ladder: Ladder, asked: Claim, fingerprints: Mapping[str, str]) -> Certificate:
    """Build the certificate, not signed yet; `fingerprints` are those of the experts, by name."""
    odds, n_shown = shown_plans(units, asked.within)
    plans = tuple(result_of(units, ladder, i, float(odds[i]), is_shown=i < n_shown) for i in range(len(odds)))
    needed, last = None, max(n_shown - 1, 0)
    if n_shown < len(plans):
        rng, gains = np.random.default_rng(0), units.gains[:, n_shown]
        needed = still_needed(gains, -asked.within, units.worst_loss, rng)
    made_at, until = asked.made_at, asked.made_at + timedelta(days=asked.valid_days)
    claim = f"at most {points_in_words(asked.within)} worse than {ladder.of}"
    looked = f"{counted(len(units.gains), *units.unit_names)}, {units.n_graded:,} graded"
    return Certificate(
        statement=f"{statement(plans[:n_shown], plans[0], asked.policy, claim)} ({looked}).",
        policy=asked.policy,
        of=ladder.of,
        within=asked.within,
        router=ladder.router.version,
        experts={name: fingerprints[name] for name in ladder.asked(last)},
        data=units.fingerprint,
        n_graded=units.n_graded,
        needed=needed,
        plans=plans,
        since=units.since or made_at.isoformat(timespec="seconds"),
        made_at=made_at.isoformat(timespec="seconds"),
        until=until.isoformat(timespec="seconds"),
        facts={
            "What": f"Policy {asked.policy} in place of {ladder.of}",
            **guarantee_facts(plans[:n_shown], ladder, claim, until),
            "Asks": ", ".join(ladder.asked(last)),
            "Rests on": f"{looked}, data {units.fingerprint}, router {ladder.router.version}, {made_at:%Y-%m-%d}",
            "Still missing": describe_missing(plans[n_shown:], needed, units, asked.within),
        },
    )


def result_of(units: Units, ladder: Ladder, plan: int, odds: float, *, is_shown: bool) -> PlanResult:
    """Return one plan's result: its gain and its saving over the same resampled units."""
    gain = saving = Metric(value=0.0)
    if n := len(units.gains):
        columns = np.stack([units.gains[:, plan], units.saved[:, plan], units.base], axis=1)
        means, draws = columns.mean(axis=0), bootstrap_means(columns, np.random.default_rng(0))
        share, shares = (part[..., 1] / np.maximum(part[..., 2], 1e-12) for part in (means, draws))
        low, high = percentile_interval(draws[:, 0])
        gain = Metric.within(low, float(means[0]), high, n)
        low, high = percentile_interval(shares)
        saving = Metric.within(low, float(share), high, n)
    fingerprint, floor = ladder.router.policy(ladder.names[plan]).fingerprint, ladder.floors[plan]
    return PlanResult(floor=floor, plan=fingerprint, gain=gain, saving=saving, odds=odds, is_shown=is_shown)


def statement(shown: tuple[PlanResult, ...], first: PlanResult, policy: str, claim: str) -> str:
    """Return one sentence without its full stop: what is guaranteed at which price, or why nothing is."""
    if shown:
        saved = cite(shown[-1].saving, percent)
        return f"Policy {policy} is {claim}, with {1 - LEVEL:.0%} confidence, and saves {saved} of the price"
    if first.gain.interval is None:
        return f"Nothing is certified: no grade shows yet whether policy {policy} is {claim}"
    measured = f"its safest plan measures {cite(first.gain, points)} points"
    return f"Nothing is certified for policy {policy}: {measured}, which does not show that it is {claim}"


def guarantee_facts(shown: tuple[PlanResult, ...], ladder: Ladder, claim: str, until: datetime) -> dict[str, str]:
    """Return the facts that only a granted certificate has."""
    if not shown:
        return {"Guaranteed": "Nothing", "Saved": "Nothing that is certified", "Valid until": "Not valid"}
    unit = "list prices in USD" if ladder.key == "cost_usd" else "active parameters, because no expert has a price"
    return {
        "Guaranteed": f"It is {claim} on average. At most {LEVEL:.0%} of such certificates are wrong",
        "Saved": f"{cite(shown[-1].saving, percent)} of the price, by {unit}",
        "Measured": f"{cite(shown[-1].gain, points)} points against {ladder.of}",
        "Valid until": f"{until:%Y-%m-%d}, or until the router, the policy or one of its experts changes",
        "Write in experts.yaml": f"quality_floor: {{within: {shown[-1].floor:.6f}, of: {ladder.of}}}",
    }


def describe_missing(left: tuple[PlanResult, ...], needed: int | None, units: Units, within: float) -> str:
    """Describe what it takes to show the next plan: `left` are the plans not shown, `needed` the units that may do."""
    if not left:
        return "Nothing: every plan of the sequence is shown"
    plan = f"the next plan, which saves {percent(left[0].saving.value, 0)}" if len(units.gains) else "the first plan"
    if needed is not None:
        graded = max(1, round(needed * units.n_graded / len(units.gains)))
        return f"About {needed:,} more {units.unit_names[1]}, {graded:,} of them graded, would show {plan}"
    if left[0].gain.value < -within:
        return f"Nothing helps {plan}: it measures {points(left[0].gain.value)} points"
    return f"It cannot be said yet how many more grades would show {plan}"
