"""Routers of an outcome table: its prompts and labels are the labelled queries, its models the experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from coe.base.errors import DataError
from coe.cli.progress import Progress
from coe.eval.routing.routing_request import DEFAULT_ENCODER
from coe.router import plugins
from coe.router.model_files.artifact import RouterArtifact, written
from coe.router.section import PluginConfig
from coe.router.types import GENERAL
from coe.training.expert_map import measure_quality
from coe.training.fit import artifact_of, fit_router, one_thread, prepare
from coe.training.fit_inputs import fingerprint_outcomes, open_encoder
from coe.training.scorer_fit import FAMILY, fit_scorer
from coe.training.stage_one import FitRequest
from coe.training.types import MIN_TABLE_PROMPTS, LabelledQuery, OutcomeTable

TABLE_ALPHA = 0.1
PART_WEIGHTS: Mapping[str, float] = {"hashing": 0.5, "use_static": 0.5}


@dataclass(frozen=True)
class TableRequest:
    """A request to fit on an outcome table. `encoder` may name several kinds, joined by `+`."""

    table: OutcomeTable
    encoder: str = DEFAULT_ENCODER
    classifier: str = "logistic"
    scorer: str = "map"
    cache: Path | None = None
    seed: int = 0


def encoder_config(spec: str) -> PluginConfig:
    """Return the configuration of a kind of encoder, or of several joined by `+`, each with its default weight."""
    kinds = spec.split("+")
    if len(kinds) == 1:
        return PluginConfig(kind=spec)
    parts = [{"kind": kind, "weight": PART_WEIGHTS.get(kind, 1.0)} for kind in kinds]
    return PluginConfig.model_validate({"kind": "concat", "parts": parts})


def table_inputs(request: TableRequest) -> tuple[FitRequest, tuple[LabelledQuery, ...]]:
    """Build the request and the labelled queries of a fit on every row. Categories with fewer than MIN_TABLE_PROMPTS
    prompts count as `general`; if no category has so many, all prompts are one.

    Raises:
        ConfigError: a kind is unknown; so a large table is not encoded in vain.
        DataError: the table is too small.
    """
    for family, kind in ((FAMILY, request.scorer), ("router.classifiers", request.classifier)):
        plugins.load(family, kind)
    table, n = request.table, len(request.table.prompt_ids)
    if n < MIN_TABLE_PROMPTS:
        raise DataError(f"the outcome table has {n} prompts to fit a router on; expected {MIN_TABLE_PROMPTS} or more")
    table = table if table.learned_categories() else table.in_one_category()
    categories = table.learned_categories()
    queries = tuple(
        LabelledQuery(text=text, category=category if category in categories else GENERAL)
        for text, category in zip(table.texts, table.categories, strict=True)
    )
    wanted = FitRequest(
        encoder_config=encoder_config(request.encoder),
        classifier=PluginConfig(kind=request.classifier),
        scorer=PluginConfig(kind=request.scorer),
        categories=categories,
        experts=table.experts,
        evidence=measure_quality(table, categories),
        alpha=TABLE_ALPHA,
        data_fingerprints={"outcomes": fingerprint_outcomes(table)},
        is_holding_out=False,
        outcomes=table,
        is_traffic=True,
    )
    return wanted, queries


def fit_table(root: Path, request: TableRequest, *, now: datetime, progress: Progress) -> RouterArtifact:
    """Fit a router of the wanted kind and write it under `root`; raise as `table_inputs` and `fit_router` do."""
    wanted, queries = table_inputs(request)
    encoder, rng = open_encoder(wanted.encoder_config, request.cache), np.random.default_rng(request.seed)
    return fit_router(root, wanted, encoder, queries, now=now, rng=rng, progress=progress)


def fit_methods(root: Path, request: TableRequest, *, now: datetime, progress: Progress) -> dict[str, RouterArtifact]:
    """Fit a router of every kind of scorer over one stage 1, as `fit_table` does, and write all under `root`."""
    wanted, queries = table_inputs(request)
    encoder, rng = open_encoder(wanted.encoder_config, request.cache), np.random.default_rng(request.seed)
    # A request for the map alone would put no graded queries beside stage 1.
    prepared = prepare(replace(wanted, scorer=PluginConfig(kind="soft_map")), encoder, queries, rng, progress)
    assert prepared.graded is not None, "a table router's request holds its outcomes"
    made = {}
    with one_thread():
        for kind in plugins.kinds(FAMILY):
            scorer = fit_scorer(PluginConfig(kind=kind), prepared.graded, prepared.rng, progress)
            made[kind] = written(root, artifact_of(wanted, encoder, prepared, scorer, now))
    return made
