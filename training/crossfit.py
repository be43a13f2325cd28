"""Judging a router by grades and rewards that it learned from: each by a twin that was fitted without it.

Shapes: n graded prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from base.text_identity import normalised_text
from router.protocols import Encoder
from router.types import IntArray
from training.evidence import Evidence
from training.fit import Prepared, finish
from training.fit_request import FitRequest
from training.log_table import FOLDS
from training.types import OutcomeTable


class FittedTwin(NamedTuple):
    """The folder of a router, and the evidence that it was fitted on."""

    folder: Path
    evidence: Evidence


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
    part_of: Callable[[int], tuple[Evidence, Collection[str]]],
    now: datetime,
) -> tuple[FittedTwin, ...]:
    """One router per fold, fitted as `request` is but for the prompts and the logged answers of the fold.

    Args:
        part_of: the evidence without a fold, and the ids of its prompts and answers.
    """
    found = []
    for fold in range(FOLDS):
        evidence, left_out = part_of(fold)
        made = finish(root, replace(request, evidence=evidence.matrix), encoder, prepared.without(left_out), now)
        found.append(FittedTwin(root / made.manifest.version, evidence))
    return tuple(found)
