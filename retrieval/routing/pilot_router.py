"""The choice of the expert that searches for a query: pure, from its base embedding and the pilot library.

Shapes: n queries, d dimensions, p pilots (labelled queries), m arms.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from base.errors import ArtifactError
from retrieval.routing.fusion import fusions, plain_column
from retrieval.routing.gains import GainModel, fit_gains
from retrieval.routing.pilot_library import PilotLibrary, RoutingMethod
from retrieval.types import BASE, Arm, RetrievalDecision, RetrievalReason, single
from router.features import unit_rows
from router.types import BoolArray, FloatArray, IntArray

TIE = 1e-6
"""Scores nearer than this are equal: the first arm, which is base, gets the query."""


@dataclass(frozen=True)
class RetrievalRouter:
    """Chooses among arms. Without a library every query goes to the plain one: base, or its fusion with BM25."""

    arms: tuple[Arm, ...]
    model: GainModel | GroupedPilots | None
    dim: int | None
    version: str = "none"

    @cached_property
    def plain(self) -> int:
        """Place of the arm that serves unless labelled queries say otherwise; that of base where nothing is fused."""
        return plain_column(self.arms) or 0

    def choose(self, base_embeddings: FloatArray) -> list[RetrievalDecision]:
        """One decision per row of `base_embeddings` (n, d), unit rows by the base encoder.

        Raises:
            ArtifactError: another number of dimensions than the library's.
        """
        if self.model is None:
            return [unprepared(self.arms[self.plain]) for _ in range(len(base_embeddings))]
        if len(self.arms) < 2:
            return [single(BASE, RetrievalReason.ONLY, self.version) for _ in range(len(base_embeddings))]
        scores, nearest, is_near = self.scored(base_embeddings)
        return [self.decide(scores[i], float(nearest[i]), bool(is_near[i])) for i in range(len(scores))]

    def columns(self, base_embeddings: FloatArray) -> IntArray:
        """(n,) place in `arms` of what `choose` chooses, without saying why."""
        if self.model is None or len(self.arms) < 2:
            return np.full(len(base_embeddings), self.plain, dtype=np.int64)
        return np.asarray(self.scored(base_embeddings)[0].argmax(axis=1), dtype=np.int64)

    def scored(self, base_embeddings: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Scores (n, m), similarity to the nearest pilot (n,), whether that is near (n,). Raises ArtifactError."""
        assert self.model is not None
        if base_embeddings.ndim != 2 or base_embeddings.shape[1] != self.dim:
            raise ArtifactError(
                f"base embeddings have shape {base_embeddings.shape}; the pilot library expects (n, {self.dim})"
            )
        return self.model.score(base_embeddings)

    def decide(self, scores: FloatArray, nearest: float, is_near: bool) -> RetrievalDecision:
        """The decision for scores (m,). Ties go to the first arm, which is base."""
        order = np.argsort(-scores, kind="stable")
        best, second = int(order[0]), int(order[1])
        arm = self.arms[best]
        if best != self.plain:
            reason = RetrievalReason.PILOTS
        else:
            reason = RetrievalReason.PLAIN if is_near else RetrievalReason.UNPREPARED
        return RetrievalDecision(
            **dict(arm),
            runner_up=self.arms[second].name,
            scores={self.arms[i].name: round(float(scores[i]), 4) for i in order[:5]},
            similarity=nearest,
            reason=reason,
            library_version=self.version,
        )


def unprepared(arm: Arm) -> RetrievalDecision:
    """The decision where there is no library."""
    if len(arm.members) == 1:
        return single(BASE, RetrievalReason.ONLY)
    return RetrievalDecision(**dict(arm), runner_up=arm.members[0], reason=RetrievalReason.UNPREPARED)


def build_router(
    library: PilotLibrary | None,
    *,
    base_fingerprint: str,
    experts: Collection[str],
    may_fuse: bool = True,
    lexical: str | None = None,
) -> RetrievalRouter:
    """A router over those arms of the library whose members are all in `experts`.

    Args:
        lexical: the expert over words that base is fused with where there is no library; None leaves it to base.

    Raises:
        ArtifactError: the library was made on another base encoder, or holds no labelled query.
    """
    if library is None:
        base = Arm(members=(BASE,), weights=(1.0,))
        fused = fusions(BASE, lexical)[:1] if lexical and may_fuse else ()
        return RetrievalRouter((base, *fused), None, None)
    manifest = library.manifest
    if manifest.base_fingerprint != base_fingerprint:
        raise ArtifactError(
            f"pilot library {manifest.version} was made on base {manifest.base_fingerprint[:12]}, this one is "
            f"{base_fingerprint[:12]}: its vectors mean something else; run `coe retrieval pilots`"
        )
    if not len(library.keys):
        raise ArtifactError(f"pilot library {manifest.version} holds no labelled query; run `coe retrieval pilots`")
    fuses = may_fuse and manifest.settings.method is RoutingMethod.GAIN
    kept = [
        i
        for i, arm in enumerate(library.arms)
        if set(arm.members) <= {BASE, *experts} and (fuses or len(arm.members) == 1)
    ]
    arms = tuple(library.arms[i] for i in kept)
    if manifest.settings.method is RoutingMethod.GAIN:
        settings = manifest.settings if fuses else manifest.single_settings or manifest.settings
        model: GainModel | GroupedPilots = fit_gains(library, kept, settings)
    else:
        model = group_pilots(library, kept)
    return RetrievalRouter(arms, model, manifest.dim, manifest.version)


@dataclass(frozen=True)
class GroupedPilots:
    """Pilot embeddings as RouterRetriever has them (Lee et al. 2024, arXiv 2409.02685, section 3): `pilots` (p, d) unit
    rows, `owner` (p,) columns of m arms.

    Each data set's labelled queries are grouped by the expert that served them best; the group's centroid of base
    embeddings is a pilot of that expert. A query's score for an expert is its mean similarity to that expert's pilots
    (the paper), or the largest (the paper's released code).
    """

    pilots: FloatArray
    owner: IntArray
    arms: int
    method: RoutingMethod

    def score(self, embeddings: FloatArray) -> tuple[FloatArray, FloatArray, np.ndarray]:
        """Scores (n, m), similarity to the nearest pilot (n,), and True (n,): this method knows no far query.

        An expert without pilots scores -1, the least a cosine can be.
        """
        cosine = embeddings @ self.pilots.T
        scores = np.full((len(embeddings), self.arms), -1.0, dtype=np.float32)
        for arm in np.unique(self.owner):
            mine = cosine[:, self.owner == arm]
            scores[:, arm] = mine.mean(axis=1) if self.method is RoutingMethod.MEAN else mine.max(axis=1)
        return scores, cosine.max(axis=1), np.ones(len(embeddings), dtype=bool)


def winners(scores: FloatArray, measured: np.ndarray) -> IntArray:
    """(n,) column of the best measured arm of each query; ties go to the first."""
    valid = np.where(measured, scores, -np.inf)
    return np.asarray((valid >= valid.max(axis=1, keepdims=True) - TIE).argmax(axis=1), dtype=np.int64)


def group_pilots(library: PilotLibrary, columns: Sequence[int]) -> GroupedPilots:
    """Centroids of each data set's queries by winner, over those columns of the library."""
    labels = winners(library.scores[:, columns], library.measured[:, columns])
    pilots, owners = [], []
    for data_set in np.unique(library.data_set):
        for arm in np.unique(labels[library.data_set == data_set]):
            pilots.append(library.embeddings[(library.data_set == data_set) & (labels == arm)].mean(axis=0))
            owners.append(int(arm))
    dim = library.manifest.dim
    return GroupedPilots(
        unit_rows(np.array(pilots, dtype=np.float32).reshape(len(pilots), dim)),
        np.array(owners, dtype=np.int64),
        len(columns),
        library.manifest.settings.method,
    )
