"""Fit of a candidate on everything that is not held out, and of its cross-fitted models: what it learned from judges it
by a model that was fitted without that. Shapes: n graded prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coe.base.text_identity import normalised_text
from coe.router.artifact import RouterArtifact
from coe.router.protocols import Encoder
from coe.router.types import IntArray
from coe.training.carried_evidence import Carried
from coe.training.evidence import Evidence, logged_queries
from coe.training.expert_map import row_numbers
from coe.training.fit import Prepared, finish, prepare
from coe.training.fit_inputs import fit_request
from coe.training.log_answers import drawn_rows
from coe.training.log_table import FOLDS
from coe.training.retrain_inputs import RetrainInputs
from coe.training.stage_one import FitRequest
from coe.training.types import OutcomeTable

MAX_LEARNED = 10_000
"""Logged answers that a learned scorer is fitted on; the map counts all of them. More do not change a scorer enough to
be waited for (ours)."""


def fit_candidate(
    root: Path, inputs: RetrainInputs, evidence: Evidence, parent: str
) -> tuple[RouterArtifact, tuple[FittedModel, ...]]:
    """Fits the candidate under `root`, and its cross-fitted models, which judge what it is fitted on."""
    plain = fit_request(inputs.config, evidence.outcomes, inputs.queries)
    logged = None
    if plain.scorer.kind != "map" and len(inputs.log):
        thinned = drawn_rows(inputs.log, evidence.counted)  # what a key says too much is left out by lot
        asked = inputs.answers(inputs.log, thinned, MAX_LEARNED)
        logged = logged_queries(asked, evidence, plain.categories) if len(asked) else None
    wanted = replace(
        plain,
        evidence=evidence.matrix,
        outcomes=with_measured(evidence, inputs.carried),
        logged=logged,
        asked=inputs.asked(),
        parents=(parent,),
        data_fingerprints=dict(plain.data_fingerprints) | {"log": inputs.log.fingerprint},
    )
    prepared = prepare(wanted, inputs.encoder, inputs.queries, inputs.rng, inputs.progress)
    made = finish(root, wanted, inputs.encoder, prepared, inputs.now)
    inputs.progress("fitting it again without each tenth of the graded prompts and of the logged answers")
    table, folds = evidence.outcomes, folds_of(evidence.outcomes)

    def part_of(fold: int) -> tuple[Evidence, set[str]]:
        left_out = {name for name, own in zip(table.prompt_ids, folds, strict=True) if own == fold}
        left_out |= {bytes(name).decode() for name in inputs.log.ids[inputs.log.fold == fold]}
        return inputs.evidence(inputs.log.without(fold), table.rows(folds != fold)), left_out

    return made, cross_fit(root, wanted, inputs.encoder, prepared, part_of, inputs.now)


def with_measured(evidence: Evidence, carried: Carried | None) -> OutcomeTable:
    """Graded prompts that a learned scorer is fitted on. A carried expert has no grades to learn from, so its column
    says of every prompt what was measured of the category."""
    table = evidence.outcomes
    if carried is None:
        return table
    known = evidence.matrix.quality[row_numbers(table, carried.rows[:-1])]
    is_carried = np.array([name in carried.experts for name in table.experts])
    return replace(table, scores=np.where(is_carried, known, table.scores).astype(np.float32))


class FittedModel(NamedTuple):
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


def cross_fit(
    root: Path,
    request: FitRequest,
    encoder: Encoder,
    prepared: Prepared,
    part_of: Callable[[int], tuple[Evidence, Collection[str]]],
    now: datetime,
) -> tuple[FittedModel, ...]:
    """One router per fold, fitted as `request` is but for the prompts and the logged answers of the fold.

    Args:
        part_of: the evidence without a fold, and the ids of its prompts and answers.
    """
    found = []
    for fold in range(FOLDS):
        evidence, left_out = part_of(fold)
        made = finish(root, replace(request, evidence=evidence.matrix), encoder, prepared.without(left_out), now)
        found.append(FittedModel(root / made.manifest.version, evidence))
    return tuple(found)
