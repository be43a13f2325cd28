"""Facts about a prompt that benchmarks/routing_ceiling.py gives away: embedding, true labels, and the graded scores
of models that are not experts of the table. Shapes: n prompts, m experts, o other models, d features."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from benchmarks.outcome_tables import write_chosen
from coe.eval.routing.baselines import best_single
from coe.eval.routing.routing_request import DEFAULT_ENCODER, RoutingRequest
from coe.eval.routing.table_fit import encoder_config
from coe.eval.routing.trial_tables import read_tables
from coe.training.datasets.outcome_rows import PROMPTS_FILE
from coe.training.datasets.outcomes import read_outcomes
from coe.training.fit_inputs import open_encoder
from coe.training.stage_one import embed
from coe.training.types import OutcomeTable

Float64Array = NDArray[np.float64]

LABELS = ("benchmark", "category")
MIN_COVERAGE = 0.9
"""Least share of the fit prompts that another model has a score on."""

RELATED: Mapping[str, str] = {"llama-3.1-nemotron-70b-instruct-hf": "llama-3.1-70b-instruct"}
"""Other models that were trained from an expert's own weights, with that expert."""

SAMPLED_SOURCE, SAMPLED_METRIC, SAMPLES = "routerdc", "pass_rate_10_samples", 10


@dataclass(frozen=True)
class Prompts:
    """Scores (n, m) of the experts, and blocks of features (n, d) by name; a block may have no column."""

    ids: tuple[str, ...]
    scores: Float64Array
    blocks: Mapping[str, Float64Array]


@dataclass(frozen=True)
class Case:
    """A named table. Prompts of the same source are shared with the other tables of that source."""

    name: str
    source: str
    fit: Prompts
    test: Prompts

    @property
    def single(self) -> int:
        return best_single(self.fit.scores)

    def held(self, blocks: Sequence[str]) -> tuple[str, ...]:
        """The blocks that have a column."""
        return tuple(name for name in blocks if self.fit.blocks[name].size > 0)


def read_case(data: Path, table_name: str, cache: Path) -> Case:
    """A table with the blocks `embedding`, `labels`, `others` and `related`; the last two hold the scores of other
    models, a missing one as the model's mean on the fit prompts.

    Raises:
        DataError: as `read_tables`.
    """
    entry = yaml.safe_load((data / "TABLES.yaml").read_text(encoding="utf-8"))[table_name]
    chosen = {key: entry[key] for key in ("benchmark", "metric") if key in entry}
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_chosen(data / entry["source"], Path(scratch), **chosen)
        tables = read_tables(RoutingRequest(outcomes=folder, out=folder, command="", experts=entry.get("experts")))
        everyone, prompts = read_outcomes(folder, keep_partial=True), pq.read_table(folder / PROMPTS_FILE)
    fit_scores = scores_of_all(everyone, tables.fit.prompt_ids)
    covered = dict(zip(everyone.experts, np.isfinite(fit_scores).mean(axis=0), strict=True))
    others = [model for model, share in covered.items() if share >= MIN_COVERAGE and model not in tables.fit.experts]
    columns = [everyone.experts.index(model) for model in others]
    means = np.nanmean(fit_scores[:, columns], axis=0)
    is_related = np.array([RELATED.get(model) in tables.fit.experts for model in others], dtype=bool)
    encoder = open_encoder(encoder_config(DEFAULT_ENCODER), cache)

    def prompts_of(table: OutcomeTable) -> Prompts:
        known = scores_of_all(everyone, table.prompt_ids)[:, columns]
        filled = np.where(np.isnan(known), means, known)
        labels = [one_hot(prompts, column, table.prompt_ids) for column in LABELS]
        blocks = {
            "embedding": embed(encoder, table.texts, lambda line: None).astype(np.float64),
            "labels": np.concatenate(labels, axis=1),
            "others": filled[:, ~is_related],
            "related": filled[:, is_related],
        }
        return Prompts(table.prompt_ids, table.scores.astype(np.float64), blocks)

    return Case(table_name, str(entry["source"]), prompts_of(tables.fit), prompts_of(tables.test))


def scores_of_all(everyone: OutcomeTable, ids: Sequence[str]) -> Float64Array:
    """(n, all models) scores on some prompts, NaN where a model was not run."""
    row = {prompt_id: i for i, prompt_id in enumerate(everyone.prompt_ids)}
    return everyone.scores[[row[prompt_id] for prompt_id in ids]].astype(np.float64)


def one_hot(prompts: pa.Table, column: str, ids: Sequence[str]) -> Float64Array:
    """(n, k) one of k labels in a column of the prompts."""
    label = dict(zip(prompts["prompt_id"].to_pylist(), prompts[column].to_pylist(), strict=True))
    return (np.array([label[i] for i in ids])[:, None] == np.array(sorted(set(label.values())))).astype(np.float64)


def sampled_rates(data: Path) -> Float64Array:
    """(n, m) rates of right answers of the prompts whose answers were sampled `SAMPLES` times; a category whose rates
    are all 0 or 1 was answered once."""
    with tempfile.TemporaryDirectory() as scratch:
        table = read_outcomes(write_chosen(data / SAMPLED_SOURCE, Path(scratch), metric=SAMPLED_METRIC))
    is_share = ((table.scores > 0) & (table.scores < 1)).any(axis=1)
    sampled = {category for category, share in zip(table.categories, is_share, strict=True) if share}
    return table.scores[[category in sampled for category in table.categories]].astype(np.float64)
