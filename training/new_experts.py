"""Letting a new expert be explored before it is trusted.

A log can only judge an expert that was tried, and a router only tries experts that it knows. So when the gate cannot
conclude about a new one, the live router is given it as one more expert that exploration may draw: no category is
mapped to it, nothing else changes, and the next retraining has rewards to judge it by.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from router.artifact import RouterArtifact, save_artifact
from router.build import evidence_of
from router.quality import QualityMatrix, reference_of
from training.evidence import Evidence

BELOW_REFERENCE = 0.01
"""What a new expert's quality is taken to lack of the expert that all are compared with, so that it is mapped nowhere
(ours)."""


def newcomers(live: RouterArtifact, evidence: Evidence) -> tuple[str, ...]:
    """Graded experts that the live router does not know."""
    return tuple(name for name in evidence.outcomes.experts if name not in live.manifest.experts)


def can_introduce(live: RouterArtifact, evidence: Evidence) -> bool:
    """Returns whether new experts can be added to the live router as they are: it decides by a map over the same
    categories."""
    rows = len(live.manifest.categories) + 1
    return live.manifest.scorer.kind == "map" and evidence.matrix.quality.shape[0] == rows


def introduce(root: Path, live: RouterArtifact, evidence: Evidence, now: datetime) -> RouterArtifact:
    """The live router with the new experts as its last ones, written under `root`."""
    names = newcomers(live, evidence)
    columns = [evidence.outcomes.experts.index(name) for name in names]
    matrix = beside(evidence_of(live), evidence.matrix.columns(columns))
    manifest = live.manifest.model_dump(exclude={"version", "weights_sha256"})
    manifest |= {
        "created_at": now.isoformat(),
        "parents": (live.manifest.version,),
        "experts": (*live.manifest.experts, *names),
    }
    arrays = dict(live.arrays) | {f"map.{name}": array for name, array in matrix.arrays().items()}
    return save_artifact(root, manifest, arrays)


def beside(known: QualityMatrix, added: QualityMatrix) -> QualityMatrix:
    """Both matrices' columns, the added ones held below the reference, so that the map stays what it is; exploration
    still prefers a good one. Their counts are the fewest of the known ones', so that the reference stays as well."""
    ceiling = known.quality[:, [reference_of(known)]] - BELOW_REFERENCE
    held = replace(
        added,
        quality=np.clip(np.minimum(added.quality, ceiling), 0.0, 1.0).astype(np.float32),
        count=np.broadcast_to(known.count.min(axis=1, keepdims=True), added.count.shape),
    )
    per_category = ("mass", "prompt_tokens")
    joined = {
        name: array if name in per_category else np.concatenate([array, getattr(held, name)], axis=1)
        for name, array in known.arrays().items()
    }
    return QualityMatrix(**joined)
