"""Measured quality of experts per category: the evidence that the map is solved from.

Rows are the k learned categories and, last, `general`; columns are m experts.
"""

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
"""Standard errors that a lead over the reference loses, and by which a challenger is ahead (router.exploration).
Qualities are shrunk already: 1 kept real leads from the map, and with 0.25 one lucky answer of fifteen took a category
from a generalist (ours; docs/results/first-map.md)."""

EQUAL = 0.005
"""Quality within which two experts count as equal, so that a cheaper one serves: half a point (ours)."""

BROAD = 4
"""Answers with which an expert counts as graded in a category: fewer prove no lead and make no reference (ours)."""

CHEAPER = 0.8
"""Share of another expert's price below which an expert is cheaper: lengths of answers vary by less (ours)."""

UNPROVEN = 1e-5
"""The amount by which an expert ranks below the reference where its lead is within its error: more than the map's
tie-break in favour of small experts (router.map_solver.TIE_BREAK), which must not decide it."""


OF_EXPERTS = ("quality", "stderr", "count", "output_tokens", "latency_ms")
"""Arrays of the evidence that have a column for each expert."""

PLAIN_TEXT = np.array([kind in ("input", "output") for kind in KINDS], dtype=np.float32)


@dataclass(frozen=True)
class QualityMatrix:
    """Shapes (k+1, m) unless said otherwise.

    `quality` is the shrunk mean score in [0, 1], `stderr` its standard error, `count` the graded answers behind it;
    `mass` (k+1,) the share of queries; `prompt_tokens` (k+1,), `output_tokens` and `latency_ms` means, 0 where unknown.
    `serving` (k+1,) is the number of the expert that serves until a bet moves the category (training.bets), -1 for none
    that is here; None in a first map. `kinds` (k+1, m, kinds of
    `router.cost.KINDS`) is the share of each kind among the tokens of prompts, or of answers; None: all are plain text.
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
        """As stored in an artifact under `map.`."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: array for name, array in own.items() if array is not None}

    def columns(self, experts: Sequence[int]) -> QualityMatrix:
        """The evidence on some experts only."""
        keep = np.asarray(experts, dtype=np.int64)
        kept = {name: array if array.ndim == 1 else array[:, keep] for name, array in self.arrays().items()}
        if self.serving is not None:
            number = {float(old): new for new, old in enumerate(keep.tolist())}
            kept["serving"] = np.array([number.get(own, -1) for own in self.serving.tolist()], dtype=np.float32)
        return QualityMatrix(**kept)

    def beside(self, others: Mapping[str, FloatArray]) -> QualityMatrix:
        """The evidence on more experts, who come last; `others` (k+1, c) has what is known of them by `OF_EXPERTS`."""
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
        """Predicted quality (n, m), with the standard errors of the decided categories."""
        index = np.asarray(rows, dtype=np.int64)
        return ExpertScores(self.experts, np.asarray(quality, dtype=np.float32), self.evidence.stderr[index])


def quality_from_arrays(arrays: Mapping[str, NDArray[np.generic]], k: int, m: int) -> QualityMatrix:
    """The matrix of an artifact with k learned categories and m experts. Raises ArtifactError on a wrong shape, or a
    number of an expert that there is not."""
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
    """The expert of highest mean quality. A category weighs as many answers as every expert has there.

    Only of those that were graded broadly: BROAD answers in at least half as many categories as whoever has most. A new
    expert that was probed where it is good would otherwise be compared by these categories alone.
    """
    breadth = (evidence.count >= BROAD).sum(axis=0)
    broad = np.flatnonzero(2 * breadth >= breadth.max())
    common = evidence.count[:, broad].min(axis=1).astype(np.float64)
    weights = common if common.any() else np.ones_like(common)
    return int(broad[(weights @ evidence.quality[:, broad]).argmax()])


def references(evidence: QualityMatrix) -> IntArray:
    """(k+1,) the expert that others have to beat: who served each category when it was measured, else `reference_of`.

    The traffic's mix would make a specialist the reference of everything when most queries are its own, and so would
    rewards, which only the expert that serves gets.
    """
    common = reference_of(evidence)
    serving = np.full(len(evidence.mass), -1) if evidence.serving is None else evidence.serving
    return np.where(serving < 0, common, serving).astype(np.int64)


def cautious_quality(evidence: QualityMatrix, cost_usd: FloatArray | float = 0.0) -> FloatArray:
    """Quality (k+1, m) for solving the map: a lead has to be shown, and of equal experts the cheapest is best.

    Where somebody serves already, no lead counts: bets on answers move a category (training.bets).

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
    """Quality (k+1, m) of a first map.

    A lead over the reference is shrunk by CAUTION standard errors of the difference (soft threshold), so that a handful
    of lucky answers moves no category and much data is left as it is. A cell with fewer than BROAD answers has no lead.
    An expert that is worse stays as much worse as was measured. Of those within EQUAL of the best, the cheapest is the
    best if it is CHEAPER.
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
