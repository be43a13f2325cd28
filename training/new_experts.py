"""Letting the live router explore by newer evidence than it decides by.

A log can only judge an expert that was tried, and tries are worth most where the newest evidence is in doubt. So when
the gate does not promote a candidate, the live router is given what the candidate knows to explore by, and experts that
it does not know yet: no category is mapped anew, and the next retraining has rewards to judge by.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from router.artifact import RouterArtifact, save_artifact
from router.build import evidence_of
from router.pipeline import Router
from router.quality import QualityMatrix, reference_of
from router.types import CategoryProbs, Query, QueryBatch
from training.evidence import Evidence

BELOW_REFERENCE = 0.01
"""Amount by which a new expert's quality is taken to be below that of the expert that all are compared with, so that it
is mapped nowhere (ours)."""

LEAST_MOVE = 0.03
"""Share of the queries that a new version must explore differently to be made (ours): every rating moves some."""


def newcomers(live: RouterArtifact, evidence: Evidence) -> tuple[str, ...]:
    """Graded experts that the live router does not know."""
    return tuple(name for name in evidence.outcomes.experts if name not in live.manifest.experts)


def can_introduce(live: RouterArtifact, evidence: Evidence) -> bool:
    """Returns whether new experts can be added to the live router as they are: it decides by a map over the same
    categories."""
    rows = len(live.manifest.categories) + 1
    return live.manifest.scorer.kind == "map" and evidence.matrix.quality.shape[0] == rows


def introduce(root: Path, live: RouterArtifact, evidence: Evidence) -> RouterArtifact:
    """The live router with the new experts as its last ones, exploring by the evidence, written under `root`. Its date
    stays that of the measurement of its map."""
    names = newcomers(live, evidence)
    columns = [evidence.outcomes.experts.index(name) for name in names]
    matrix = beside(evidence_of(live), evidence.matrix.columns(columns))
    manifest = live.manifest.model_dump(exclude={"version", "weights_sha256"})
    experts = (*live.manifest.experts, *names)
    manifest |= {
        "parents": (live.manifest.version,),
        "experts": experts,
    }
    arrays = dict(live.arrays) | {f"map.{name}": array for name, array in matrix.arrays().items()}
    for name in ("quality", "stderr"):
        newest = getattr(matrix, name).copy()
        for column, expert in enumerate(experts):
            if expert in evidence.outcomes.experts:
                newest[:, column] = getattr(evidence.matrix, name)[:, evidence.outcomes.experts.index(expert)]
        arrays[f"explored.{name}"] = newest
    return save_artifact(root, manifest, arrays)


def exploration_moved(one: Router, other: Router) -> float:
    """Largest mean share, over policies, of the queries that one of two routers of the same map would explore otherwise
    than the other."""
    moved = [0.0]
    for policy in one.policies:
        shares = [explored_shares(router, policy) for router in (one, other)]
        names = sorted({name for own in shares for row in own for name in row})
        tables = [np.array([[row.get(name, 0.0) for name in names] for row in own]) for own in shares]
        moved.append(float(np.abs(tables[0] - tables[1]).sum(axis=1).mean() / 2))
    return max(moved)


def explored_shares(router: Router, policy: str) -> list[dict[str, float]]:
    """Shares of the experts in each row of a map."""
    rows = len(router.categories)
    probs = CategoryProbs(router.classifier.categories_, np.zeros((rows, rows - 1), dtype=np.float32))
    batch = QueryBatch(tuple(Query(name, "") for name in router.categories), np.zeros((rows, 1), dtype=np.float32))
    quality = router.scorer.score(batch, probs, range(rows)).quality
    prospects = [router.prospect(policy, row, quality[row], {}) for row in range(rows)]
    return [dict(zip(found.eligible, found.odds.probs, strict=True)) for found in prospects]


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
