"""Letting the live router explore by newer evidence than it decides by.

A log can only judge an expert that was tried, and tries are worth most where the newest evidence is in doubt. So when
the gate does not promote a candidate, the live router is given what the candidate knows to explore by, and experts that
it does not know yet: no category is mapped anew but those that the next best takes over (training.takeover), and the
next retraining has rewards to judge by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from router.artifact import RouterArtifact, save_artifact
from router.build import evidence_of
from router.pipeline import Router
from router.quality import QualityMatrix, reference_of
from training.evidence import Evidence

BELOW_REFERENCE = 0.01
"""Amount by which a new expert's quality is taken to be below that of the expert that all are compared with, so that it
is mapped nowhere (ours)."""

RENEWED = ("quality", "stderr", "count")

LEAST_MOVE = 0.03
"""Share of the queries that a new version must explore differently to be made (ours): every rating moves some."""


def can_renew(live: RouterArtifact, categories: Sequence[str]) -> bool:
    """Returns whether the live router takes newer evidence as it is: it decides by a map over the same categories, in
    the same order."""
    return live.manifest.scorer.kind == "map" and live.manifest.categories == tuple(categories)


@dataclass(frozen=True)
class Renewed:
    """Knowledge of a live router of `experts`: the `matrix` it decides by, and the `newest` it explores by."""

    experts: tuple[str, ...]
    matrix: QualityMatrix
    newest: QualityMatrix


def renewed(
    known: QualityMatrix,
    experts: tuple[str, ...],
    evidence: Evidence,
    rows: Sequence[int] = (),
    kept: Sequence[str] = (),
) -> Renewed:
    """Knowledge of a live router, `known` of `experts`, with the experts that are new to it as the last ones.

    Args:
        rows: of the map, which are decided anew by the evidence, against who serves them now.
        kept: experts of whom the evidence has from the live router what it knows; they stay as they are.
    """
    graded = evidence.outcomes.experts
    names = tuple(name for name in graded if name not in experts)
    matrix = beside(known, evidence.matrix.columns([graded.index(name) for name in names])) if names else known
    experts = (*experts, *names)
    newest = replace(matrix, **{name: getattr(matrix, name).copy() for name in RENEWED})
    if evidence.matrix.is_guess.any():  # what is asked for now may not have been known when the live map was measured
        newest = replace(newest, mass=evidence.matrix.mass)
    decided = replace(matrix, **{name: getattr(matrix, name).copy() for name in RENEWED})
    for column, expert in enumerate(experts):
        for name in RENEWED if expert in graded else ():
            own = getattr(evidence.matrix, name)[:, graded.index(expert)]
            getattr(newest, name)[:, column] = own
            if expert not in kept:
                getattr(decided, name)[list(rows), column] = own[list(rows)]
    if rows and evidence.matrix.serving is not None:
        now = [-1 if number < 0 else experts.index(graded[int(number)]) for number in evidence.matrix.serving]
        serving = np.full(len(now), -1, dtype=np.float32) if known.serving is None else known.serving.copy()
        serving[list(rows)] = [now[row] for row in rows]
        decided = replace(decided, serving=serving)
    return Renewed(experts, replace(decided, guessed=evidence.matrix.guessed), newest)


def renew(
    root: Path, live: RouterArtifact, evidence: Evidence, rows: Sequence[int] = (), kept: Sequence[str] = ()
) -> RouterArtifact:
    """The live router with what is `renewed`, written under `root`. It keeps the date of its map's measurement."""
    made = renewed(evidence_of(live), live.manifest.experts, evidence, rows, kept)
    manifest = live.manifest.model_dump(exclude={"version", "weights_sha256"})
    manifest |= {"parents": (live.manifest.version,), "experts": made.experts}
    arrays = dict(live.arrays) | {f"map.{name}": array for name, array in made.matrix.arrays().items()}
    arrays |= {f"explored.{name}": getattr(made.newest, name) for name in ("quality", "stderr", "mass")}
    return save_artifact(root, manifest, arrays)


def rows_given(router: Router, experts: Sequence[str]) -> tuple[int, ...]:
    """Rows of the map of a router that these experts serve."""
    return tuple(row for row, name in enumerate(router.expert_of().values()) if name in experts)


def exploration_moved(one: Router, other: Router) -> float:
    """Largest mean share, over policies, of the queries that one of two routers of the same map would explore otherwise
    than the other; or of the queries of a category without grades."""
    moved = [0.0]
    for policy in one.policies:
        shares = [explored_shares(router, policy) for router in (one, other)]
        names = sorted({name for own in shares for row in own for name in row})
        tables = [np.array([[row.get(name, 0.0) for name in names] for row in own]) for own in shares]
        by_row = np.abs(tables[0] - tables[1]).sum(axis=1) / 2
        explores = other.policies[policy].exploration
        guessed = [] if explores is None else sorted(explores.guessed)
        moved += [float(by_row.mean()), *by_row[guessed].tolist()]
    return max(moved)


def explored_shares(router: Router, policy: str) -> list[dict[str, float]]:
    """Shares of the experts in each row of a map."""
    quality = router.scorer.measured.evidence.quality
    decisions = [router.cached_decision(policy, row, own, {}) for row, own in enumerate(quality)]
    return [dict(zip(found.usual.eligible, found.odds.probs, strict=True)) for found in decisions]


def beside(known: QualityMatrix, added: QualityMatrix) -> QualityMatrix:
    """Both matrices' columns, the added ones held below the reference, so that the map stays what it is; exploration
    still prefers a good one. Their counts are 0, so that none is the reference, or ahead because it is cheap."""
    ceiling = known.quality[:, [reference_of(known)]] - BELOW_REFERENCE
    held = replace(
        added,
        quality=np.clip(np.minimum(added.quality, ceiling), 0.0, 1.0).astype(np.float32),
        count=np.zeros_like(added.count),
    )
    return known.beside(held.arrays())
