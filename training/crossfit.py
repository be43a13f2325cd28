"""Judging a router by grades that it learned from: each by a twin that was fitted without it.

Shapes: n graded prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from base.text_identity import normalised_text
from router.protocols import Encoder
from router.quality import QualityMatrix
from training.fit import FitRequest, Prepared, finish
from training.types import OutcomeTable

FOLDS = 10
"""Each twin learns from nine tenths: a map of five folds lost more by what it lacked than its judge gained (ours)."""

IntArray = NDArray[np.int64]


def folds_of(table: OutcomeTable) -> IntArray:
    """(n,) fold of each prompt, every category spread evenly; prompts of equal text share one. It follows from the
    prompts alone, whatever their order."""
    names = [normalised_text(text) or name for text, name in zip(table.texts, table.prompt_ids, strict=True)]
    category_of = dict(zip(names, table.categories, strict=True))
    ranked = sorted(category_of, key=lambda name: (category_of[name], hashlib.sha256(name.encode()).digest()))
    fold = {name: place % FOLDS for place, name in enumerate(ranked)}
    return np.array([fold[name] for name in names], dtype=np.int64)


def fit_twins(
    root: Path,
    request: FitRequest,
    encoder: Encoder,
    prepared: Prepared,
    table: OutcomeTable,
    evidence_of: Callable[[OutcomeTable], QualityMatrix],
    now: datetime,
) -> tuple[Path, ...]:
    """Folders of one router per fold of `table` (n), fitted as `request` is but for the prompts of the fold.

    Args:
        evidence_of: the quality matrix that these prompts and all other evidence lead to.
    """
    folds, found = folds_of(table), []
    for fold in range(FOLDS):
        left_out = {name for name, own in zip(table.prompt_ids, folds, strict=True) if own == fold}
        wanted = replace(request, evidence=evidence_of(table.rows(folds != fold)))
        made = finish(root, wanted, encoder, prepared.without(left_out), now)
        found.append(root / made.manifest.version)
    return tuple(found)
