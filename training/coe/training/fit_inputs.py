"""Inputs of a fit for experts.yaml, and of a retraining: labelled queries, graded prompts, the encoder, the log."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from coe.base.embedding_cache import CachedEncoder
from coe.base.errors import DataError
from coe.base.record_files import OptionalText, Row, Text, json_records
from coe.base.shipped import seed_folder
from coe.cli.progress import Progress, silent
from coe.router.build import build_encoder
from coe.router.config.composition import CoeConfig, load_config
from coe.router.model_files.artifact import RouterArtifact
from coe.router.pipeline import Router
from coe.router.protocols import Encoder
from coe.router.reading.normalise import normalised_text
from coe.router.section import PluginConfig
from coe.training.category_mix import AskedQueries, read_asked
from coe.training.change_points import ChangePoint, find_change_points, is_stale, replaced_models
from coe.training.datasets.outcomes import graded_at, graded_models, outcome_folders, read_outcome_folders
from coe.training.evidence import Evidence, gather_evidence
from coe.training.expert_map import measure_quality
from coe.training.fit import fit_router
from coe.training.fit_options import DEFAULT_TERMS, FitOptions, Terms
from coe.training.log_table import LogTable, read_log_table
from coe.training.published_scores import published_qualities
from coe.training.stage_one import FitRequest, label_numbers
from coe.training.types import LabelledQuery, OutcomeTable, no_outcomes


def data_fingerprint(parts: list[str]) -> str:
    """Return the first 16 hex digits of a SHA-256 over texts in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def fingerprint_outcomes(table: OutcomeTable) -> str:
    """Return the first 16 hex digits of a SHA-256 over prompts, experts and scores."""
    return data_fingerprint([*table.prompt_ids, *table.experts, repr(np.nan_to_num(table.scores, nan=-1).tobytes())])


def usable_outcomes(config: CoeConfig, root: Path) -> OutcomeTable:
    """Load the grades of the experts of experts.yaml, in that order, from the table or the folders of tables at `root`.

    Raises:
        DataError: no expert was graded, or a table cannot be read.
    """
    return read_outcome_folders(root, tuple(config.experts))


def outcomes_or_published(config: CoeConfig, root: Path) -> OutcomeTable:
    """Load the grades of the experts of experts.yaml. If there are none, return a table without prompts of the experts
    whose models have published scores.

    Raises:
        DataError: nobody was graded and no model has published scores, or a table cannot be read.
    """
    is_graded = any(graded_models(folder) & set(config.experts) for folder in outcome_folders(root))
    known = (
        ()
        if is_graded
        else tuple(name for name in config.experts if math.isfinite(published_quality(config, (name,))[0]))
    )
    return no_outcomes(known, source="published scores") if known else usable_outcomes(config, root)


def published_quality(config: CoeConfig, experts: Sequence[str]) -> tuple[float, ...]:
    """Return the quality of experts by the published scores of their models; NaN if a model has none.

    An adapter is another model than its base.
    """
    entries = [config.experts[name] for name in experts]
    return published_qualities("" if entry.adapter else entry.model or "" for entry in entries)


class QueryRow(Row, extra="forbid"):
    """A line of a file of labelled queries."""

    text: Text
    category: OptionalText = ""
    style: OptionalText = ""
    language: OptionalText = ""


def read_seed(folder: Path) -> tuple[LabelledQuery, ...]:
    """Load the queries of a folder of `<category>.jsonl` files, by file name and then line. A line is `{"text": "...",
    "category": "...", "style": "...", "language": "..."}`; only the text is required.

    Raises:
        DataError: the folder is missing or empty, a line is wrong or in another category's file, or a text appears
            twice (up to case, spacing and punctuation).
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; expected a folder of files named <category>.jsonl")
    queries: list[LabelledQuery] = []
    seen: dict[str, str] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for place, query in numbered_queries(file, file.stem):
            if query.category != file.stem:
                raise DataError(f"{place}: category '{query.category}' in a file of category '{file.stem}'")
            key = normalised_text(query.text)
            if key in seen:
                raise DataError(f"{place}: text is already at {seen[key]}")
            seen[key] = place
            queries.append(query)
    if not queries:
        raise DataError(f"{folder}: holds no query; expected files named <category>.jsonl")
    return tuple(queries)


def numbered_queries(file: Path, category: str) -> Iterator[tuple[str, LabelledQuery]]:
    """Yield each query of a file with its place; the file's category fills gaps. Raise DataError if a line is not a
    query."""
    for record in json_records(file):
        row = record.read(QueryRow)
        yield record.place, LabelledQuery(row.text.strip(), row.category or category, row.style, row.language)


def labelled_queries(config: CoeConfig, folder: Path) -> tuple[LabelledQuery, ...]:
    """Return the labelled queries of experts.yaml's categories in a folder, and its examples. Name and description of a
    category with examples count as one more.

    Raises:
        DataError: a category has no query, which is checked before anything is encoded, or a file cannot be read.
    """
    found = (*read_seed(folder), *read_beside(folder, AGENTS))
    known = {(query.category, query.text) for query in found}
    given = [
        (name, text.strip())
        for name, texts in config.examples.items()
        for text in (*texts, f"{name}: {config.categories[name]}")
    ]
    examples = [LabelledQuery(text, name) for name, text in dict.fromkeys(given) if (name, text) not in known]
    queries = (*(query for query in found if query.category in config.categories), *examples)
    label_numbers(queries, config.learned_categories)
    return queries


ABOUT_MATERIAL = "about_material"
"""Name of a folder beside labelled queries, for asks that mean the material around them."""

AGENTS = "agents"
"""Folder beside labelled queries, of asks to coding agents: the categories of `coe init --agents`."""


def read_beside(folder: Path, name: str) -> tuple[LabelledQuery, ...]:
    """Read the queries of a folder beside labelled queries; none if it is not there. Raises DataError."""
    beside = folder / name
    return read_seed(beside) if beside.is_dir() else ()


def read_about_material(config: CoeConfig, folder: Path) -> tuple[LabelledQuery, ...]:
    """Load the asks of learned categories that mean the material around them; none if the folder has no such folder.

    Raises:
        DataError: a file cannot be read.
    """
    found = read_beside(folder, ABOUT_MATERIAL)
    return tuple(query for query in found if query.category in config.learned_categories)


def open_encoder(config: PluginConfig, cache: Path | None) -> Encoder:
    """Open the encoder, behind the cache if there is one."""
    return cached_encoder(build_encoder(config), cache)


def cached_encoder(encoder: Encoder, cache: Path | None) -> Encoder:
    """Return the encoder behind a cache of embeddings, or as it is without a folder."""
    return encoder if cache is None else CachedEncoder(encoder, cache)


NO_OPTIONS = FitOptions()


@dataclass(frozen=True)
class TrainRequest:
    """The inputs of a router for experts.yaml: `queries` is a folder of labelled queries, `cache` one that stores
    embeddings."""

    config: Path
    outcomes: Path
    queries: Path = field(default_factory=seed_folder)
    cache: Path | None = None
    options: FitOptions = NO_OPTIONS


def fit_configured(root: Path, request: TrainRequest, *, now: datetime, progress: Progress = silent) -> RouterArtifact:
    """Fit a router for experts.yaml and write it under `root`.

    Raises:
        ConfigError: experts.yaml, or a kind, is wrong.
        DataError: a category has no labelled query, no expert was graded, or a file cannot be read.
        MissingWeightsError: the encoder's weights are missing.
    """
    config, options = load_config(request.config), request.options
    queries = labelled_queries(config, request.queries)
    table = outcomes_or_published(config, request.outcomes)
    about = read_about_material(config, request.queries)
    wanted = fit_request(config, table, queries, options, about)
    encoder = open_encoder(wanted.encoder_config, request.cache)
    rng = np.random.default_rng(options.seed)
    return fit_router(root, wanted, encoder, queries, now=now, rng=rng, progress=progress)


def fit_request(
    config: CoeConfig,
    table: OutcomeTable,
    queries: tuple[LabelledQuery, ...],
    options: FitOptions = NO_OPTIONS,
    about_material: tuple[LabelledQuery, ...] = (),
) -> FitRequest:
    """Build the request of a fit from experts.yaml and the options."""
    labelled = data_fingerprint([f"{query.category}\t{query.text}" for query in (*queries, *about_material)])
    return FitRequest(
        encoder_config=PluginConfig(kind=options.encoder) if options.encoder else config.router.encoder,
        classifier=PluginConfig(kind=options.classifier) if options.classifier else config.router.classifier,
        scorer=PluginConfig(kind=options.scorer) if options.scorer else config.router.scorer,
        categories=config.learned_categories,
        experts=table.experts,
        evidence=measure_quality(table, config.learned_categories, published_quality(config, table.experts)),
        alpha=config.router.alpha,
        about_material=about_material,
        data_fingerprints={"queries": labelled, "outcomes": fingerprint_outcomes(table)},
        outcomes=replace(table, active_params_b={name: config.experts[name].active_b for name in table.experts}),
    )


@dataclass(frozen=True)
class RetrainRequest:
    """The places and terms of a retraining.

    `queries` is a folder of labelled queries; `since` is in Unix seconds; `cache` is a folder that stores embeddings of
    labelled queries and graded prompts.
    """

    config: Path
    routers: Path
    outcomes: Path
    database_url: str
    queries: Path = field(default_factory=seed_folder)
    since: float = 0.0
    terms: Terms = DEFAULT_TERMS
    is_dry_run: bool = False
    seed: int = 0
    cache: Path | None = None


@dataclass(frozen=True)
class RetrainInputs:
    """Everything that a retraining reads, and the last changes of quality in the log."""

    request: RetrainRequest
    config: CoeConfig
    queries: tuple[LabelledQuery, ...]
    about_material: tuple[LabelledQuery, ...]
    outcomes: OutcomeTable
    log: LogTable
    changes: tuple[ChangePoint, ...]
    encoder: Encoder
    rng: np.random.Generator
    now: datetime
    progress: Progress

    def evidence(self, categories: Sequence[str]) -> Evidence:
        """Gather the evidence of the log and of every graded prompt on those learned categories."""
        prior = published_quality(self.config, self.outcomes.experts)
        return gather_evidence(self.outcomes, self.log, categories, self.changes, prior)

    def asked(self) -> AskedQueries:
        """Read the newest queries of the log, for their mix of categories."""
        return read_asked(self.request.database_url, self.encoder, self.config.feedback, since=self.request.since)


def read_inputs(
    request: RetrainRequest,
    config: CoeConfig,
    live: RouterArtifact,
    router: Router,
    *,
    now: datetime,
    progress: Progress,
) -> RetrainInputs:
    """Read everything that a retraining learns from, except the live router and its artifact.

    Raises:
        ConfigError, DataError: an input cannot be read, or no table grades an expert of the live map, so no candidate
            could be judged.
    """
    queries = labelled_queries(config, request.queries)
    graded = outcomes_or_published(config, request.outcomes)
    lost = [name for name in live.manifest.experts if name in config.experts and name not in graded.experts]
    if lost:
        raise DataError(
            f"{request.outcomes}: no table grades {', '.join(lost)}, known to the live router; "
            "run `coe eval collect`, or remove the expert from experts.yaml"
        )
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
        about_material=read_about_material(config, request.queries),
        outcomes=graded,
        log=log,
        # An outage does not change what an expert can do, and would make all that came before it worthless.
        changes=(*replaced, *find_change_points(log.rows(~log.is_failure & ~is_stale(log, replaced)))),
        encoder=cached_encoder(router.encoder, request.cache),
        rng=np.random.default_rng(request.seed),
        now=now,
        progress=progress,
    )
