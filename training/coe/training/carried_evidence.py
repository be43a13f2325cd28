"""Evidence of the live router on experts that outcome tables no longer grade, carried over into a candidate.

A grade may be gone (a table that was not kept, another `--outcomes`), and the expert would go with it, silently. Its
measured quality is in the live artifact. Shapes: k learned categories of experts.yaml (row k is `general`), c carried
experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from coe.router.artifact import RouterArtifact
from coe.router.build import evidence_of
from coe.router.config import CoeConfig
from coe.router.quality import QualityMatrix
from coe.router.types import GENERAL, Float64Array, FloatArray
from coe.training.change_points import ChangePoint


@dataclass(frozen=True)
class Carried:
    """Experts of the live map without a grade. `columns` (k+1, c) is what was measured of them, `lead` (k+1, c) by how
    much that lies above the mean of the experts that are graded still, whose names are `others`, or above 0. `rows`
    names the k+1 rows. `since`: Unix seconds; what was logged before is in `columns` already."""

    experts: tuple[str, ...]
    columns: QualityMatrix
    lead: Float64Array
    others: tuple[str, ...]
    rows: tuple[str, ...]
    since: float

    @property
    def graded(self) -> FloatArray:
        """(k+1, c) answers that were measured, but in categories without grades, where all of them are ratings."""
        return np.where(self.columns.is_guess[:, None], np.float32(0.0), self.columns.count)


def carried_over(config: CoeConfig, live: RouterArtifact, graded: Sequence[str]) -> Carried | None:
    """Collects what the live router knows of its experts that experts.yaml has and that were not graded; None where
    there is none."""
    known = live.manifest.experts
    experts = tuple(name for name in config.experts if name in known and name not in graded)
    if not experts:
        return None
    evidence = in_rows_of(config, live)
    columns = evidence.columns([known.index(name) for name in experts])
    others = tuple(name for name in graded if name in known)
    level = evidence.quality[:, [known.index(name) for name in others]].mean(axis=1, keepdims=True) if others else 0.0
    return Carried(
        experts=experts,
        columns=columns,
        lead=(columns.quality - level).astype(np.float64),
        others=others,
        rows=(*config.learned_categories, GENERAL),
        since=datetime.fromisoformat(live.manifest.created_at).timestamp(),
    )


def in_rows_of(config: CoeConfig, live: RouterArtifact) -> QualityMatrix:
    """The live evidence with the categories of experts.yaml as its rows; one that the live router does not know has
    what is known of `general`, as if nothing was graded there."""
    evidence, names = evidence_of(live), (*live.manifest.categories, GENERAL)
    wanted = (*config.learned_categories, GENERAL)
    rows = [names.index(name) if name in names else len(names) - 1 for name in wanted]
    is_known = np.array([name in names for name in wanted])
    moved = QualityMatrix(**{name: array[rows] for name, array in evidence.arrays().items()})
    return replace(moved, count=np.where(is_known[:, None], moved.count, 0).astype(np.float32))


def with_carried(
    matrix: QualityMatrix,
    names: Sequence[str],
    carried: Carried,
    sums: Float64Array,
    counts: Float64Array,
    changes: Sequence[ChangePoint],
) -> QualityMatrix:
    """The matrix over `names` with the columns of the carried experts filled.

    A cell is the lead that was measured, above the others as they are measured now, and then what was logged since: the
    mean of both by their numbers of answers, n0 and n, with the standard error falling by sqrt(n0 / (n0 + n)) (normal
    model, the old measurement as the prior). Nothing is left of a cell whose quality changed since.

    Args:
        sums: (k+1, c) weighted sums of rewards logged since, on the scale of grades; `counts` (k+1, c) their weights.
    """
    at = [names.index(name) for name in carried.experts]
    before = carried.columns.count.astype(np.float64)
    for change in changes:
        if change.expert in carried.experts and change.at > carried.since and change.category in carried.rows:
            before[carried.rows.index(change.category), carried.experts.index(change.expert)] = 0.0
    others = [names.index(name) for name in carried.others]
    level = matrix.quality[:, others].mean(axis=1, keepdims=True) if others else 0.0
    weight = np.maximum(before, 1.0)
    quality, stderr = matrix.quality.copy(), matrix.stderr.copy()
    quality[:, at] = np.clip((weight * (level + carried.lead) + sums) / (weight + counts), 0.0, 1.0)
    stderr[:, at] = np.where(before > 0, carried.columns.stderr, 0.5) * np.sqrt(weight / (weight + counts))
    filled = {"quality": quality, "stderr": stderr, "count": matrix.count.copy()}
    filled["count"][:, at] = before + counts
    for name in ("output_tokens", "latency_ms"):
        filled[name] = getattr(matrix, name).copy()
        filled[name][:, at] = getattr(carried.columns, name)
    if carried.columns.kinds is not None:
        filled["kinds"] = matrix.shares
        filled["kinds"][:, at] = carried.columns.kinds
    return replace(matrix, **filled)
