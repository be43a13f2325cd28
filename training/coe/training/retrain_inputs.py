"""Inputs of one retraining: the log, the feedback, the outcomes, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from coe.base.embedding_cache import CachedEncoder
from coe.cli.progress import Progress
from coe.router.artifact import RouterArtifact
from coe.router.config import CoeConfig, load_config
from coe.router.protocols import Encoder
from coe.router.types import GENERAL, IntArray
from coe.training.carried_evidence import Carried, carried_over
from coe.training.category_mix import AskedQueries, read_asked
from coe.training.change_points import ChangePoint, find_change_points, is_stale, replaced_models
from coe.training.datasets.outcome_folders import graded_at
from coe.training.evidence import Evidence, beside_serving, gather_evidence
from coe.training.fit_inputs import labelled_queries, learned_outcomes, opened_encoder, usable_outcomes
from coe.training.gate import DEFAULT_TERMS, Terms
from coe.training.log_answers import AskedAnswers, WholeDecisions, fetch_answers, sample_rows
from coe.training.log_table import LogTable, read_log_table
from coe.training.types import LabelledQuery, OutcomeTable


@dataclass(frozen=True)
class RetrainRequest:
    """Places and terms of a retraining.

    `queries` is a folder of labelled queries, None the seed set; `since` is in Unix seconds; `cache` a folder that
    keeps embeddings of labelled queries and graded prompts; `terms` what the gate demands.
    """

    config: Path
    routers: Path
    outcomes: Path
    database_url: str
    queries: Path | None = None
    since: float = 0.0
    terms: Terms = DEFAULT_TERMS
    is_dry_run: bool = False
    seed: int = 0
    cache: Path | None = None


@dataclass(frozen=True)
class RetrainInputs:
    """Everything that a retraining reads, and the last changes of quality that the log shows. `outcomes` has a column
    without scores for every expert that is carried over; `serving` the expert of each category in the live map."""

    request: RetrainRequest
    config: CoeConfig
    queries: tuple[LabelledQuery, ...]
    outcomes: OutcomeTable
    carried: Carried | None
    log: LogTable
    changes: tuple[ChangePoint, ...]
    encoder: Encoder
    rng: np.random.Generator
    now: datetime
    progress: Progress
    serving: Mapping[str, str] = field(default_factory=dict)

    def evidence(self, log: LogTable | None = None, outcomes: OutcomeTable | None = None) -> Evidence:
        """Evidence of a log, maybe empty, and of graded prompts; by default of all of the log and of every prompt that
        is learned from."""
        log, table = log if log is not None else self.log, outcomes or learned_outcomes(self.outcomes)
        found = gather_evidence(table, log, self.config.learned_categories, self.changes, self.carried)
        rows = (*self.config.learned_categories, GENERAL)
        return replace(found, matrix=beside_serving(found.matrix, rows, table.experts, self.serving))

    def asked(self) -> AskedQueries:
        """The newest queries of the log, by their mix of categories."""
        return read_asked(self.request.database_url, self.encoder, self.config.feedback, since=self.request.since)

    def answers(self, log: LogTable, rows: IntArray, most: int) -> AskedAnswers:
        """Some rows of a log, at most so many, with their vectors. What users wrote is encoded without the cache: it is
        not kept next to the log, where no erasure would find it."""
        plain = self.encoder.encoder if isinstance(self.encoder, CachedEncoder) else self.encoder
        log, whole = log.rows(sample_rows(log, rows, most)), WholeDecisions(self.config, self.request.routers, plain)
        return fetch_answers(self.request.database_url, log, plain, self.progress, whole=whole.of)


def read_inputs(request: RetrainRequest, live: RouterArtifact, *, now: datetime, progress: Progress) -> RetrainInputs:
    """Reads all that a retraining learns from. Raises ConfigError and DataError as the readers do."""
    config = load_config(request.config)
    queries = labelled_queries(config, request.queries)
    graded = usable_outcomes(config, request.outcomes)
    carried = carried_over(config, live, graded.experts)
    known = {"policy": set(config.policies), "expert": set(config.experts), "category": set(config.categories)}
    log = read_log_table(
        request.database_url, since=request.since, feedback=config.feedback, known=known, progress=progress
    )
    newest = graded_at(request.outcomes) if log.model_changes else {}
    replaced = replaced_models(log, tuple(config.categories), newest)
    return RetrainInputs(
        request=request,
        config=config,
        queries=queries,
        outcomes=graded if carried is None else graded.with_unmeasured(carried.experts),
        carried=carried,
        log=log,
        # An outage does not change what an expert can do, and would make all that came before it worthless.
        changes=(*replaced, *find_change_points(log.rows(~log.is_failure & ~is_stale(log, replaced)))),
        encoder=opened_encoder(config.router.encoder, request.cache),
        rng=np.random.default_rng(request.seed),
        now=now,
        progress=progress,
    )
