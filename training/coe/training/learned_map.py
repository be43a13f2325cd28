"""The state that a router stores of its learning, and the same router with newer evidence. Pure.

A router that learns decides by its newest evidence, but a category's serving expert stays until a bet moves it
(training.bets). It also stores the experts that served when learning began, and since when answers are bet on.

Shapes: k + 1 rows of the map, m experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from coe.base.shares import Z_95
from coe.router.build import evidence_of
from coe.router.model_files.artifact import RouterArtifact, made_artifact, require_array
from coe.router.pipeline import Router
from coe.router.quality import OF_EXPERTS
from coe.router.types import IntArray, Metric, Record
from coe.training.evidence import Evidence

PART = "learned"
"""Prefix of the arrays in an artifact."""


@dataclass(frozen=True)
class Learned:
    """Numbers (k+1,) of the serving experts, and of those (`first`) that served when learning `began`; bets are on
    answers since `since`. Both times are in Unix seconds; experts are numbered as in the artifact."""

    serving: IntArray
    first: IntArray
    began: float
    since: float

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays that the artifact stores; the serving experts are in the map's evidence."""
        return {f"{PART}.first": self.first, f"{PART}.times": np.array([self.began, self.since])}

    def after_moves(self, moves: Mapping[int, int], now: datetime) -> Learned:
        """Return the same state after some rows moved to other experts, if any."""
        if not moves:
            return self
        serving = self.serving.copy()
        serving[list(moves)] = list(moves.values())
        return replace(self, serving=serving, since=now.timestamp())


def learned_of(artifact: RouterArtifact, router: Router) -> Learned:
    """Load an artifact's state of learning, or begin one. Rows whose expert is gone are served as the router solved
    them. Raise ArtifactError if arrays have other shapes."""
    experts, arrays = artifact.manifest.experts, artifact.part(PART)
    solved = router.policy("default").solution.expert_of
    serving = np.array([experts.index(router.experts[int(expert)]) for expert in solved], dtype=np.int64)
    kept = evidence_of(artifact).serving
    if kept is not None:
        is_there = np.array([number >= 0 and experts[int(number)] in router.experts for number in kept])
        serving = np.where(is_there, kept, serving).astype(np.int64)
    began = datetime.fromisoformat(artifact.manifest.created_at).timestamp()
    if not arrays:
        return Learned(serving, serving, began, began)
    first = np.asarray(require_array(arrays, "first", serving.shape), dtype=np.int64)
    times = np.asarray(require_array(arrays, "times", (2,)), dtype=np.float64)
    return Learned(serving, first, float(times[0]), float(times[1]))


def renew_router(live: RouterArtifact, evidence: Evidence, learned: Learned, now: datetime) -> RouterArtifact:
    """Build the live router with newer evidence; experts that are new to it come last."""
    known, graded, experts = evidence_of(live), evidence.outcomes.experts, live.manifest.experts
    new = tuple(name for name in graded if name not in experts)
    matrix = known.beside(evidence.matrix.columns([graded.index(name) for name in new]).arrays()) if new else known
    experts = (*experts, *new)
    arrays = matrix.arrays() | {"kinds": matrix.shares}
    own = evidence.matrix.arrays() | {"kinds": evidence.matrix.shares}
    columns = [experts.index(name) for name in graded]
    for name in (*OF_EXPERTS, "kinds"):
        arrays[name] = arrays[name].copy()
        arrays[name][:, columns] = own[name]
    arrays |= {name: own[name] for name in ("mass", "prompt_tokens")}
    arrays["serving"] = learned.serving.astype(np.float32)
    manifest = live.manifest.model_dump(exclude={"version", "weights_sha256"})
    manifest |= {"parents": (live.manifest.version,), "experts": experts, "created_at": now.isoformat()}
    kept = {name: array for name, array in live.arrays.items() if not name.startswith(("map.", f"{PART}."))}
    made = {f"map.{name}": array for name, array in arrays.items()}
    return made_artifact(manifest, kept | made | learned.arrays())


def explored_shares(router: Router, policy: str) -> list[dict[str, float]]:
    """Return the share of each expert in each row of a policy's map, by name."""
    quality = router.scorer.measured.evidence.quality
    decisions = [router.cached_decision(policy, row, own, {}) for row, own in enumerate(quality)]
    return [dict(zip(found.usual.eligible, found.odds.probs, strict=True)) for found in decisions]


def traffic_shift(one: Router, other: Router) -> float:
    """Return the largest mean share, over policies, of the queries that two routers would send to different experts."""
    moved = [0.0]
    for policy in one.policies:
        shares = [explored_shares(router, policy) for router in (one, other)]
        names = sorted({name for own in shares for row in own for name in row})
        tables = [np.array([[row.get(name, 0.0) for name in names] for row in own]) for own in shares]
        moved.append(float((np.abs(tables[0] - tables[1]).sum(axis=1) / 2).mean()))
    return max(moved)


class LearningGain(Record):
    """The gain of learning since it `began` (Unix seconds): mean quality of the answers, those of challengers
    included, by current estimates. It is over the first map and over the best single expert."""

    began: float
    over_first: Metric
    over_single: Metric
    single: str

    @property
    def summary(self) -> str:
        """The gain in one sentence, in points."""
        day = datetime.fromtimestamp(self.began, UTC).strftime("%Y-%m-%d")
        first, single = (points_of(each) for each in (self.over_first, self.over_single))
        return f"since {day}: {first} points over the first map, {single} over {self.single} alone"


def points_of(metric: Metric) -> str:
    """Format a metric in points with its interval, as in +1.8 [+0.6, +3.4]."""
    interval = metric.interval
    ends = "" if interval is None else f" [{100 * interval.low:+z.1f}, {100 * interval.high:+z.1f}]"
    return f"{100 * metric.value:+z.1f}{ends}"


def measure_learning(artifact: RouterArtifact, router: Router) -> LearningGain:
    """Measure the gain by the posterior of every expert, with normal 95% intervals. The posterior is shrunk, so an
    expert that was chosen for its luck does not count in full. Experts are assumed to err independently."""
    learned, names = learned_of(artifact, router), artifact.manifest.experts
    matrix = router.scorer.measured.evidence
    single = router.experts[int((matrix.mass @ matrix.quality).argmax())]
    first = [names[int(number)] for number in learned.first]
    return LearningGain(
        began=learned.began,
        over_first=gain_over(router, first),
        over_single=gain_over(router, [single] * len(first)),
        single=single,
    )


def gain_over(router: Router, others: Sequence[str]) -> Metric:
    """Return a router's mean quality less that of a map of other experts (k+1,). Rows whose other expert is gone are
    left out."""
    matrix, experts = router.scorer.measured.evidence, router.experts
    shares = explored_shares(router, "default")
    pairs = zip(shares, others, strict=True)
    more = np.array([[own.get(name, 0.0) - (name == other) for name in experts] for own, other in pairs])
    more[[other not in experts for other in others]] = 0.0
    part = (matrix.mass / matrix.mass.sum()).astype(np.float64)[:, None] * more
    value = float((part * matrix.quality).sum())
    half = Z_95 * math.sqrt(float(((part * matrix.stderr) ** 2).sum()))
    return Metric.within(value - half, value, value + half, int(matrix.count.sum()))
