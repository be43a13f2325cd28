"""Measured quality of experts per category: the evidence that the map is solved from. Rows are the k learned categories
and, last, `general`; columns are m experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import ArtifactError
from coe.router.model_files.artifact import require_array
from coe.router.prices.cost import KINDS
from coe.router.types import ExpertScores, FloatArray, IntArray

CAUTION = 0.5
"""Standard errors that a lead over the reference loses, and by which a challenger is ahead (router.policy.exploration).

Qualities are shrunk already: 1 kept real leads from the map. With 0.25 one lucky answer of fifteen took a category from
a generalist (ours; docs/results/first-map.md).
"""

EQUAL = 0.005
"""Quality within which two experts count as equal, so that a cheaper one serves: half a point (ours)."""

BROAD = 4
"""Answers with which an expert counts as graded in a category: fewer prove no lead and make no reference (ours)."""

CHEAPER = 0.8
"""Share of another expert's price below which an expert is cheaper: lengths of answers vary by less (ours)."""

UNPROVEN = 1e-5
"""Quality by which an expert ranks below the reference if its lead is within its error. It exceeds the map's tie-break
in favour of small experts (router.policy.map_solver.TIE_BREAK), which must not decide."""


OF_EXPERTS = ("quality", "stderr", "count", "output_tokens", "latency_ms")
"""Arrays of the evidence that have a column for each expert."""

PLAIN_TEXT = np.array([kind in ("input", "output") for kind in KINDS], dtype=np.float32)


@dataclass(frozen=True)
class QualityMatrix:
    """Evidence on experts by category, in arrays of shape (k+1, m) unless said otherwise.

    `quality` is the shrunk mean score in [0, 1], `stderr` its standard error, `count` the graded answers behind it.
    `mass` (k+1,) is the share of queries. `prompt_tokens` (k+1,), `output_tokens` and `latency_ms` are means, 0 if
    unknown. `serving` (k+1,) is the number of the serving expert until a bet moves the category (training.bets), -1 if
    it is not here; None in a first map. `kinds` (k+1, m, kinds of `router.prices.cost.KINDS`) is the share of each kind
    among the tokens of prompts, or of answers; None: all are plain text.
    """

    quality: FloatArray
    stderr: FloatArray
    count: FloatArray
    mass: FloatArray
    prompt_tokens: FloatArray
    output_tokens: FloatArray
    latency_ms: FloatArray
    serving: FloatArray | None = None
    kinds: FloatArray | None = None

    @property
    def shares(self) -> FloatArray:
        """A copy of `kinds`, or plain text."""
        if self.kinds is not None:
            return self.kinds.copy()
        return np.broadcast_to(PLAIN_TEXT, (*self.quality.shape, len(KINDS))).copy()

    def arrays(self) -> dict[str, FloatArray]:
        """Return the arrays that an artifact stores under `map.`."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: array for name, array in own.items() if array is not None}

    def columns(self, experts: Sequence[int]) -> QualityMatrix:
        """Return the evidence on some experts only."""
        keep = np.asarray(experts, dtype=np.int64)
        kept = {name: array if array.ndim == 1 else array[:, keep] for name, array in self.arrays().items()}
        if self.serving is not None:
            number = {float(old): new for new, old in enumerate(keep.tolist())}
            kept["serving"] = np.array([number.get(own, -1) for own in self.serving.tolist()], dtype=np.float32)
        return QualityMatrix(**kept)

    def beside(self, others: Mapping[str, FloatArray]) -> QualityMatrix:
        """Return the evidence with more experts, who come last; `others` (k+1, c) has their evidence."""
        found = {name: np.hstack([getattr(self, name), others[name]]) for name in OF_EXPERTS}
        if self.kinds is not None or "kinds" in others:
            plain = np.broadcast_to(PLAIN_TEXT, (*others["quality"].shape, len(KINDS)))
            found["kinds"] = np.hstack([self.shares, others.get("kinds", plain)])
        return replace(self, **found)


@dataclass(frozen=True)
class Measured:
    """The experts with what was measured of them per category."""

    experts: tuple[str, ...]
    evidence: QualityMatrix

    def scores(self, quality: FloatArray, rows: Sequence[int]) -> ExpertScores:
        """Return predicted quality (n, m), with the standard errors of the decided categories."""
        index = np.asarray(rows, dtype=np.int64)
        return ExpertScores(self.experts, np.asarray(quality, dtype=np.float32), self.evidence.stderr[index])


def quality_from_arrays(arrays: Mapping[str, NDArray[np.generic]], k: int, m: int) -> QualityMatrix:
    """Build the matrix of an artifact with k learned categories and m experts. It raises ArtifactError if an array has
    the wrong shape, or the number of no expert."""
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(OF_EXPERTS, (k + 1, m))
    if "kinds" in arrays:
        shapes["kinds"] = (k + 1, m, len(KINDS))
    optional = [name for name in ("serving",) if name in arrays]
    vectors = {name: (k + 1,) for name in ("mass", "prompt_tokens", *optional)}
    fields = {
        name: np.asarray(require_array(arrays, name, shape), dtype=np.float32)
        for name, shape in (shapes | vectors).items()
    }
    if "serving" in fields and not np.isin(fields["serving"], np.arange(-1, m)).all():
        raise ArtifactError(f"array 'serving' must hold -1 to {m - 1} for {m} experts")
    return QualityMatrix(**fields)


def reference_of(evidence: QualityMatrix) -> int:
    """Return the expert of highest mean quality; a category weighs as many answers as every expert has there. Only
    broadly graded experts count: BROAD answers in at least half as many categories as the expert with the most. A new
    expert that was probed where it is good would otherwise be compared by these categories alone."""
    breadth = (evidence.count >= BROAD).sum(axis=0)
    broad = np.flatnonzero(2 * breadth >= breadth.max())
    common = evidence.count[:, broad].min(axis=1).astype(np.float64)
    weights = common if common.any() else np.ones_like(common)
    return int(broad[(weights @ evidence.quality[:, broad]).argmax()])


def references(evidence: QualityMatrix) -> IntArray:
    """Return the expert that others have to beat in each category, of shape (k+1,). It is the serving expert of the
    time when the category was measured, else `reference_of`. The traffic's mix would make a specialist the reference of
    everything if most queries are its own. So would rewards, which only the serving expert gets."""
    common = reference_of(evidence)
    serving = np.full(len(evidence.mass), -1) if evidence.serving is None else evidence.serving
    return np.where(serving < 0, common, serving).astype(np.int64)


def cautious_quality(evidence: QualityMatrix, cost_usd: FloatArray | float = 0.0) -> FloatArray:
    """Return quality (k+1, m) for solving the map: a lead has to be shown, and of equal experts the cheapest is best.
    If a category has a serving expert already, no lead counts: bets on answers move it (training.bets).

    Args:
        cost_usd: (k+1, m) of a query.
    """
    cautious = with_leads(evidence, cost_usd)
    if evidence.serving is None:
        return cautious
    rows, serving = np.arange(len(cautious)), evidence.serving.astype(np.int64)
    base = evidence.quality[rows, serving][:, None]
    held = np.minimum(evidence.quality, base - np.float32(UNPROVEN))
    held[rows, serving] = base[:, 0]
    return np.asarray(np.where((serving >= 0)[:, None], held, cautious), dtype=np.float32)


def with_leads(evidence: QualityMatrix, cost_usd: FloatArray | float = 0.0) -> FloatArray:
    """Return quality (k+1, m) of a first map.

    A lead over the reference is shrunk by CAUTION standard errors of the difference (soft threshold). So a handful of
    lucky answers moves no category, and much data is left as it is. A cell with fewer than BROAD answers has no lead.
    An expert that is worse stays as much worse as was measured. Among those within EQUAL of the best, the cheapest is
    the best if it is CHEAPER.
    """
    rows, reference = np.arange(len(evidence.quality)), references(evidence)
    base = evidence.quality[rows, reference][:, None]
    lead, is_graded = evidence.quality - base, evidence.count >= BROAD
    error = CAUTION * np.sqrt(evidence.stderr**2 + evidence.stderr[rows, reference][:, None] ** 2)
    cautious = np.where(lead > 0, np.where((lead > error) & is_graded, lead - error, -UNPROVEN), lead)
    cautious[rows, reference] = 0.0
    price, best = np.broadcast_to(cost_usd, lead.shape), cautious.argmax(axis=1)
    is_equal = is_graded & (cautious >= cautious[rows, best][:, None] - EQUAL)
    cheapest = np.where(is_equal, price, np.inf).argmin(axis=1)
    takes = is_equal.any(axis=1) & (price[rows, cheapest] < CHEAPER * price[rows, best])
    cautious[rows[takes], cheapest[takes]] = cautious[rows[takes], best[takes]] + UNPROVEN
    return np.asarray(base + cautious, dtype=np.float32)
