"""The choice of the expert that searches for a query. It is pure, from base embedding and pilot library.

Shapes: n queries, d dimensions, p pilots (labelled queries), m arms.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coe.base.errors import ArtifactError
from coe.retrieval.routing.fusion import fusions, plain_column
from coe.retrieval.routing.gains import GainModel, fit_gains
from coe.retrieval.routing.pilot_library import PilotLibrary
from coe.retrieval.types import BASE, Arm, RetrievalDecision, RetrievalReason, single
from coe.router.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class RetrievalRouter:
    """A router among arms. Without a library every query goes to the plain arm: base, or its fusion with BM25."""

    arms: tuple[Arm, ...]
    model: GainModel | None
    dim: int | None
    version: str = "none"

    @cached_property
    def plain(self) -> int:
        """The place of the arm that serves by default; that of base if there is no fusion."""
        return plain_column(self.arms) or 0

    def choose(self, base_embeddings: FloatArray) -> list[RetrievalDecision]:
        """Return one decision per row of `base_embeddings` (n, d), unit rows by the base encoder.

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
        """Return the places in `arms` (n,) of what `choose` chooses, without reasons."""
        if self.model is None or len(self.arms) < 2:
            return np.full(len(base_embeddings), self.plain, dtype=np.int64)
        return np.asarray(self.scored(base_embeddings)[0].argmax(axis=1), dtype=np.int64)

    def scored(self, base_embeddings: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Return scores (n, m), similarity to the nearest pilot (n,) and whether that is near (n,).

        Raises:
            ArtifactError: another number of dimensions than the library's.
        """
        assert self.model is not None
        if base_embeddings.ndim != 2 or base_embeddings.shape[1] != self.dim:
            raise ArtifactError(
                f"base embeddings have shape {base_embeddings.shape}; the pilot library expects (n, {self.dim})"
            )
        return self.model.score(base_embeddings)

    def decide(self, scores: FloatArray, nearest: float, is_near: bool) -> RetrievalDecision:
        """Return the decision for scores (m,). Ties go to the first arm, which is base."""
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
    """Return the decision of a router without a library."""
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
    """Build a router over the library's arms whose members are all in `experts`.

    Args:
        lexical: the expert over words that base is fused with if there is no library; None leaves base alone.

    Raises:
        ArtifactError: the library was made on another base encoder, or has no labelled query.
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
    kept = [
        i
        for i, arm in enumerate(library.arms)
        if set(arm.members) <= {BASE, *experts} and (may_fuse or len(arm.members) == 1)
    ]
    settings = manifest.settings if may_fuse else manifest.single_settings or manifest.settings
    model = fit_gains(library, kept, settings)
    return RetrievalRouter(tuple(library.arms[i] for i in kept), model, manifest.dim, manifest.version)
