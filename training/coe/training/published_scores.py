"""Published scores of known models, as the prior of an expert's quality. Shapes: r published scores, m models.

`published_scores.yaml` has the figures with their sources. A score is modelled as the level of its benchmark in its
source plus the quality of its model (two-way analysis of variance). So models from different sources are compared
through the models that both have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict

TABLE = Path(__file__).with_name("published_scores.yaml")

WEIGHT = 64.0
"""Weight of a published quality, in graded prompts. On six public tables a published difference between two models
was as inaccurate as one from 12 to 352 graded prompts (benchmarks.published_scores)."""

RIDGE = 1.0
"""Weight, in scores, of the assumption that a model is average, which shrinks models with one score (ours)."""

TUNED = re.compile(r"-(instruct|it|chat|hf|latest|awq|gptq|fp8|int8|int4)(?![a-z0-9])")
DATE = re.compile(r"-(20\d\d-?\d\d-?\d\d)(-v\d+:\d+)?$")


class Source(BaseModel):
    """The scores that one source publishes, in percent; None if it has none for a benchmark."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    url: str
    benchmarks: tuple[str, ...]
    scores: Mapping[str, tuple[float | None, ...]]


def read_sources() -> tuple[Source, ...]:
    """Return the published scores that are shipped."""
    return tuple(Source.model_validate(entry) for entry in yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def model_name(model: str) -> tuple[str, str]:
    """Return a model's name without provider, spelling and tuning, and the date of its snapshot; "" without a date."""
    name = model.lower().rpartition("/")[2].rpartition("anthropic.")[2].removeprefix("meta-")
    date = DATE.search(name)
    plain = TUNED.sub("", name[: date.start()] if date else name)
    return re.sub(r"[^a-z0-9]", "", plain), re.sub(r"\D", "", date[1]) if date else ""


def model_qualities(sources: tuple[Source, ...]) -> tuple[dict[tuple[str, str], float], float]:
    """Return the quality of every model by name and date, less the mean of all, and the mean level of a benchmark."""
    cells = [
        (f"{entry.source} {benchmark}", model_name(model), score / 100)
        for entry in sources
        for model, scores in entry.scores.items()
        for benchmark, score in zip(entry.benchmarks, scores, strict=True)
        if score is not None
    ]
    rows, models = list(dict.fromkeys(row for row, _, _ in cells)), list(dict.fromkeys(name for _, name, _ in cells))
    design = np.zeros((len(cells) + len(models), len(rows) + len(models)))
    at = np.arange(len(cells))
    design[at, [rows.index(row) for row, _, _ in cells]] = 1.0
    design[at, [len(rows) + models.index(name) for _, name, _ in cells]] = 1.0
    design[len(cells) :, len(rows) :] = np.sqrt(RIDGE) * np.eye(len(models))
    scores = np.array([*(score for _, _, score in cells), *np.zeros(len(models))])
    found = np.linalg.lstsq(design, scores, rcond=None)[0]
    return dict(zip(models, found[len(rows) :].tolist(), strict=True)), float(found[: len(rows)].mean())


def published_qualities(models: Iterable[str], sources: tuple[Source, ...] | None = None) -> tuple[float, ...]:
    """Return the quality that published scores predict for each model, in [0, 1] on an average benchmark.

    A model without a date has the newest snapshot's. A dated one has its own, or that of the name without a date, and
    never another snapshot's. A model without published scores is NaN.
    """
    known, level = model_qualities(read_sources() if sources is None else sources)
    newest = {name: quality for (name, _), quality in sorted(known.items())}
    found = []
    for name, date in map(model_name, models):
        quality = known.get((name, date), known.get((name, ""), np.nan)) if date else newest.get(name, np.nan)
        found.append(float(np.clip(level + quality, 0.0, 1.0)))
    return tuple(found)
