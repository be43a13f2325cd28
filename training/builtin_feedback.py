"""Feedback on answers of experts that are not language models: it counts as grades of theirs do.

No propensity weighs it: whether such an expert answers follows from the question alone.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from router.artifact import RouterArtifact, save_artifact
from router.pipeline import Router
from training.types import OutcomeTable


class RatedBuiltin(NamedTuple):
    """One rated answer; `key` names who asked."""

    decision_id: str
    category: str
    expert: str
    reward: float
    key: str


def with_feedback(
    graded: OutcomeTable | None, rated: Sequence[RatedBuiltin], max_key_share: float
) -> OutcomeTable | None:
    """The grades of builtin experts and a row for each rated answer; None where nothing was graded.

    Args:
        max_key_share: of the rated answers of an expert that one key may have given, where several did.
    """
    if graded is None:
        return None
    kept = [each for each in bounded(rated, max_key_share) if each.expert in graded.experts]
    if not kept:
        return graded
    unknown = np.full((len(kept), len(graded.experts)), np.nan, dtype=np.float32)
    column = [graded.experts.index(each.expert) for each in kept]
    scores, tokens, rows = unknown.copy(), unknown.copy(), np.arange(len(kept))
    scores[rows, column] = [each.reward for each in kept]
    tokens[rows, column] = 0.0  # a builtin expert writes none; known, because it answered
    answered = OutcomeTable(
        prompt_ids=tuple(each.decision_id for each in kept),
        texts=("",) * len(kept),
        categories=tuple(each.category for each in kept),
        splits=("train",) * len(kept),
        experts=graded.experts,
        scores=scores,
        cost_usd=unknown,
        output_tokens=tokens,
        latency_ms=unknown,
        metric=graded.metric,
        source=graded.source,
    )
    return graded.joined(answered)


def bounded(rated: Sequence[RatedBuiltin], max_key_share: float) -> list[RatedBuiltin]:
    """The newest answers of each key, as far as its share of an expert's goes."""
    keys_of: defaultdict[str, set[str]] = defaultdict(set)
    for each in rated:
        keys_of[each.expert].add(each.key)
    all_of = Counter(each.expert for each in rated)
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for each in reversed(rated):
        most = math.ceil(max_key_share * all_of[each.expert]) if len(keys_of[each.expert]) > 1 else all_of[each.expert]
        if taken[each.expert, each.key] < most:
            taken[each.expert, each.key] += 1
            kept.append(each)
    return kept[::-1]


def recounted(root: Path, live: RouterArtifact, candidate: RouterArtifact) -> RouterArtifact:
    """The live router with what the candidate knows of builtin experts, written under `root`."""
    manifest = live.manifest.model_dump(exclude={"version", "weights_sha256"})
    manifest |= {"parents": (live.manifest.version,), "builtins": candidate.manifest.builtins}
    arrays = {name: array for name, array in live.arrays.items() if not name.startswith("builtins.")}
    arrays |= {f"builtins.{name}": array for name, array in candidate.part("builtins").items()}
    return save_artifact(root, manifest, arrays)


def trust_moved(live: Router, candidate: Router) -> bool:
    """Returns whether the counts of the candidate let other builtin experts answer before those that the live map
    plans; both have the same categories."""
    if live.categories != candidate.categories or live.builtins.names != candidate.builtins.names:
        return False
    quality = live.scorer.measured.evidence.quality
    planned = np.array([quality[row, live.experts.index(name)] for row, name in enumerate(live.expert_of().values())])
    first = [router.builtins.sure > planned[:, None] for router in (live, candidate)]
    return bool((first[0] != first[1]).any())
