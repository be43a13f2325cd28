"""The first router: from the seed set and measured outcomes, before there is any traffic."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.artifact import RouterArtifact
from router.build import build_encoder
from router.config import CoeConfig, PluginConfig, load_config
from router.embedding_cache import CachedEncoder
from router.progress import Progress, silent
from router.protocols import Encoder
from router.shipped import seed_folder
from training.datasets.labelled_queries import read_seed
from training.datasets.outcome_folders import read_outcome_folders
from training.expert_map import measure_quality
from training.fit import FitRequest, fit_router, label_numbers
from training.split import split_of
from training.types import LabelledQuery, OutcomeTable


def data_fingerprint(parts: list[str]) -> str:
    """First 16 hex digits of a SHA-256 over texts in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def fingerprint_queries(queries: tuple[LabelledQuery, ...]) -> str:
    return data_fingerprint([f"{query.category}\t{query.text}" for query in queries])


def fingerprint_outcomes(table: OutcomeTable) -> str:
    return data_fingerprint([*table.prompt_ids, *table.experts, repr(np.nan_to_num(table.scores, nan=-1).tobytes())])


def usable_outcomes(config: CoeConfig, root: Path) -> OutcomeTable:
    """What was graded of experts of experts.yaml, in that order, in the table or the folders of tables at `root`.

    Raises:
        DataError: nothing was, or a table cannot be read.
    """
    return read_outcome_folders(root, tuple(config.experts))


MIN_SPLIT_PROMPTS = 1000
"""With at least so many graded prompts a fifth of them judges candidates; fewer are learned from whole, because the map
of a small table loses more than its judge gains (docs/decisions.md)."""


def is_judging(table: OutcomeTable) -> NDArray[np.bool_]:
    """(n,) graded prompts that no router is fitted on; none of a small table."""
    if len(table.texts) < MIN_SPLIT_PROMPTS:
        return np.zeros(len(table.texts), dtype=bool)
    return np.array(
        [split_of(text or name) == "test" for text, name in zip(table.texts, table.prompt_ids, strict=True)]
    )


def learned_outcomes(table: OutcomeTable) -> OutcomeTable:
    """The graded prompts that routers are fitted on."""
    return table.rows(~is_judging(table))


def judged_outcomes(table: OutcomeTable) -> tuple[OutcomeTable, bool]:
    """The graded prompts that routers are compared on, and whether they are held out from both."""
    judging = is_judging(table)
    return (table.rows(judging), True) if judging.any() else (table, False)


def labelled_queries(config: CoeConfig, folder: Path | None) -> tuple[LabelledQuery, ...]:
    """The labelled queries of the categories of experts.yaml; those of the seed set by default.

    Raises:
        DataError: a category has none, which is said before anything is encoded; or a file cannot be read.
    """
    found = read_seed(folder or seed_folder())
    queries = tuple(query for query in found if query.category in config.categories)
    label_numbers(queries, config.learned_categories)
    return queries


def opened_encoder(config: PluginConfig, cache: Path | None) -> Encoder:
    """The encoder, behind the cache if there is one."""
    encoder = build_encoder(config)
    return encoder if cache is None else CachedEncoder(encoder, cache)


def first_router(
    root: Path,
    config_path: Path,
    outcomes: Path,
    queries_folder: Path | None,
    encoder_kind: str | None,
    classifier_kind: str | None,
    scorer_kind: str | None = None,
    *,
    seed: int,
    now: datetime,
    progress: Progress = silent,
    cache: Path | None = None,
) -> RouterArtifact:
    """Fits a router for experts.yaml; `cache` is a folder that keeps embeddings.

    Raises:
        ConfigError: experts.yaml, or a kind, is wrong.
        DataError: a category has no labelled query, no expert was graded, or a file cannot be read.
        MissingWeightsError: the encoder's weights are not here.
    """
    config = load_config(config_path)
    queries = labelled_queries(config, queries_folder)
    table = learned_outcomes(usable_outcomes(config, outcomes))
    request = fit_request(config, table, queries, encoder_kind, classifier_kind, scorer_kind)
    encoder = opened_encoder(request.encoder_config, cache)
    return fit_router(root, request, encoder, queries, now=now, rng=np.random.default_rng(seed), progress=progress)


def fit_request(
    config: CoeConfig,
    table: OutcomeTable,
    queries: tuple[LabelledQuery, ...],
    encoder_kind: str | None = None,
    classifier_kind: str | None = None,
    scorer_kind: str | None = None,
) -> FitRequest:
    """What experts.yaml asks to fit; a kind given here replaces the configured plugin."""
    return FitRequest(
        encoder_config=PluginConfig(kind=encoder_kind) if encoder_kind else config.router.encoder,
        classifier=PluginConfig(kind=classifier_kind) if classifier_kind else config.router.classifier,
        scorer=PluginConfig(kind=scorer_kind) if scorer_kind else config.router.scorer,
        categories=config.learned_categories,
        experts=table.experts,
        evidence=measure_quality(table, config.learned_categories),
        alpha=config.router.alpha,
        data_fingerprints={"queries": fingerprint_queries(queries), "outcomes": fingerprint_outcomes(table)},
        outcomes=table,
    )
