"""A new expert on the map without refitting anything: 32 to 128 graded probes become its column of the quality matrix.

The method follows the zero-shot additions of PHATGOOSE (arXiv 2402.05859) and UniRoute (2502.08773). An expert's own
claims have no effect. Shapes: p probes, k learned categories (row k is `general`), m experts that are on the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from coe.base.errors import ConfigError, DataError, allowed_values
from coe.base.shares import Z_95
from coe.router.build import configured_router, evidence_of, expert_costs
from coe.router.config.composition import CoeConfig
from coe.router.model_files.artifact import RouterArtifact, load_artifact, save_artifact
from coe.router.quality import BROAD, CHEAPER, QualityMatrix, with_leads
from coe.router.types import GENERAL, BoolArray, Float64Array, FloatArray, IntArray
from coe.training.expert_map import cell_means, cell_sums, row_numbers, shrink
from coe.training.fit_inputs import fingerprint_outcomes
from coe.training.learned_map import learned_of
from coe.training.types import OutcomeTable

EXTENDABLE = "map"
MAX_LUCK = 0.1
"""Share of new experts without any advantage that may still be given a category."""

MAX_PROBES_NEEDED = 10_000


@dataclass(frozen=True)
class CategoryOutlook:
    """The new expert on one category against the serving expert.

    `difference` is of measured qualities, `stderr` its standard error. `probes_needed` probes of the category would
    decide a difference of this size; None if it is decided or if no number would do. `takes`: the map gives it the
    category. `luck` is the share of experts without any advantage that look as good in some category.
    """

    category: str
    count: int
    quality: float
    quality_stderr: float
    serves: str
    difference: float
    stderr: float
    takes: bool
    luck: float

    @property
    def chance_better(self) -> float:
        """The probability that the new expert is better, under a normal error."""
        return 0.5 * (1 + math.erf(self.difference / max(self.stderr, 1e-9) / math.sqrt(2)))

    @property
    def is_decided(self) -> bool:
        return abs(self.difference) > Z_95 * self.stderr

    @property
    def probes_needed(self) -> int | None:
        """The probes that decide the difference: their number grows with the squared ratio of standard errors."""
        if self.is_decided or self.count == 0 or self.difference == 0:
            return None
        needed = math.ceil(self.count * (Z_95 * self.stderr / abs(self.difference)) ** 2)
        return needed if needed <= MAX_PROBES_NEEDED else None


@dataclass(frozen=True)
class Onboarding:
    """The new router and the measurements of the expert."""

    artifact: RouterArtifact
    parent: str
    expert: str
    n_probes: int
    mean: float
    mean_stderr: float
    outlook: tuple[CategoryOutlook, ...]

    @property
    def taken(self) -> tuple[str, ...]:
        return tuple(row.category for row in self.outlook if row.takes)


def check_can_join(config: CoeConfig, artifact: RouterArtifact, expert: str) -> None:
    """Raise ConfigError if the expert is unknown or on the map already, or the router judges each query on its own."""
    manifest = artifact.manifest
    if expert not in config.experts:
        raise ConfigError(f"experts.yaml has no expert '{expert}'{allowed_values(expert, config.experts)}")
    if expert in manifest.experts:
        raise ConfigError(
            f"'{expert}' is on the map of router {manifest.version} already; `coe eval collect` and `coe train` "
            "measure it anew"
        )
    if manifest.scorer.kind != EXTENDABLE:
        raise ConfigError(
            f"router {manifest.version} has a scorer of kind '{manifest.scorer.kind}', which learns every expert from "
            "graded prompts: grade the new one by `coe eval collect` and run `coe train`"
        )


def joined_evidence(
    evidence: QualityMatrix, probed: OutcomeTable, others: OutcomeTable | None, categories: Sequence[str]
) -> QualityMatrix:
    """Return the matrix with one more column, the last.

    A probe's difficulty says nothing about the expert. So its score is compared with the others' mean on the same
    probe; if none was graded on it, with their mean on the category. The differences are shrunk as in the other
    columns, and the category's mean is added back.

    Args:
        probed: scores of the new expert, of shape (p, 1).
        others: scores of the experts on the map, on any probes.
    """
    rows, k = row_numbers(probed, categories), len(categories)
    category_level = evidence.quality.mean(axis=1, dtype=np.float64)
    level = probe_levels(probed.texts, others, category_level[rows])
    relative = np.asarray(probed.scores - level[:, None], dtype=np.float64)
    quality, stderr = shrink(*cell_sums(relative, rows, k))
    columns = {
        "quality": np.clip(quality + category_level[:, None], 0.0, 1.0),
        "stderr": stderr,
        "count": cell_sums(probed.scores, rows, k)[2],
        "output_tokens": cell_means(probed.output_tokens, rows, k),
        "latency_ms": cell_means(probed.latency_ms, rows, k),
    }
    return evidence.beside({name: column.astype(np.float32) for name, column in columns.items()})


def probe_levels(asked: Sequence[str], others: OutcomeTable | None, default: Float64Array) -> Float64Array:
    """Return the others' mean score on each probe (p,), matched by text; `default` (p,) if none was graded on it."""
    if others is None:
        return default
    number = {text: row for row, text in enumerate(others.texts)}
    levels = default.copy()
    for i, text in enumerate(asked):
        row = number.get(text)
        if row is not None and np.isfinite(others.scores[row]).any():
            levels[i] = float(np.nanmean(others.scores[row]))
    return levels


def with_newcomer(
    joined: QualityMatrix, serving: IntArray, is_proven: BoolArray, cost_usd: FloatArray | float = 0.0
) -> QualityMatrix:
    """Return the matrix with the serving expert of each row: the present one (k+1,), or the last if it is proven (k+1,)
    and best. It is measured in unproven rows, too, so it may be a challenger there.

    Args:
        cost_usd: cost of a query, of shape (k+1, m).
    """
    count = joined.count.copy()
    count[:, -1] = np.maximum(count[:, -1], BROAD * is_proven)
    leads = with_leads(replace(joined, count=count, serving=serving.astype(np.float32)), cost_usd)
    last = joined.quality.shape[1] - 1
    takes = is_proven & (leads.argmax(axis=1) == last)
    return replace(joined, serving=np.where(takes, last, serving).astype(np.float32))


def costs_of(config: CoeConfig, matrix: QualityMatrix, experts: Sequence[str]) -> FloatArray:
    """Return the USD of a query, of shape (k+1, m); 0 for experts that experts.yaml no longer has."""
    here = [number for number, name in enumerate(experts) if name in config.experts]
    found = np.zeros(matrix.quality.shape, dtype=np.float32)
    entries = [config.experts[experts[number]] for number in here]
    found[:, here] = expert_costs(entries, matrix.columns(here)).cost_usd
    return found


def onboard(
    config: CoeConfig,
    live: Path,
    expert: str,
    probed: OutcomeTable,
    others: OutcomeTable | None,
    *,
    now: datetime,
    luck: Float64Array,
) -> Onboarding:
    """Write a router that is the live one with the new expert on its map; classifier and all else are unchanged.

    Args:
        live: folder of the live router; the new one goes beside it.
        luck: probability that luck alone looks as good in a category, of shape (k+1,). Above `MAX_LUCK` the expert
            takes no category from one that is not more expensive.

    Raises:
        ConfigError: the expert cannot join, as in `check_can_join`.
        DataError: no probe was graded.
        ArtifactError: the live router is damaged.
    """
    artifact = load_artifact(live)
    check_can_join(config, artifact, expert)
    probed = probed.rows(np.isfinite(probed.scores[:, 0]))
    if not probed.prompt_ids:
        raise DataError(f"no answer of '{expert}' was graded, so its quality is unknown")
    manifest = artifact.manifest
    joined = joined_evidence(evidence_of(artifact), probed, others, manifest.categories)
    fields = manifest.model_dump(mode="json", exclude={"version", "weights_sha256"})
    fields |= {
        "created_at": now.isoformat(),
        "parents": (manifest.version,),
        "experts": (*manifest.experts, expert),
        "data_fingerprints": {**manifest.data_fingerprints, f"probes of {expert}": fingerprint_outcomes(probed)},
    }
    before = configured_router(config, artifact)
    experts = (*manifest.experts, expert)
    learned = learned_of(artifact, before)
    serving = learned.serving
    cost_usd = costs_of(config, joined, experts)
    is_cheaper = cost_usd[:, -1] < CHEAPER * cost_usd[np.arange(len(serving)), serving]
    is_proven = (luck <= MAX_LUCK) | (is_cheaper & (joined.count[:, -1] >= BROAD))
    stored = with_newcomer(joined, serving, is_proven, cost_usd)
    arrays = {**artifact.arrays} | {f"map.{name}": array for name, array in stored.arrays().items()} | learned.arrays()
    written = save_artifact(live.parent, fields, arrays)
    scores = probed.scores[:, 0].astype(np.float64)
    error = float(scores.std(ddof=1)) / math.sqrt(len(scores)) if len(scores) > 1 else 0.5
    after = configured_router(config, written, before.encoder)
    maps = before.expert_of(), after.expert_of()
    return Onboarding(
        artifact=written,
        parent=manifest.version,
        expert=expert,
        n_probes=len(scores),
        mean=float(scores.mean()),
        mean_stderr=error,
        outlook=outlook(joined, manifest.experts, (*manifest.categories, GENERAL), *maps, expert, luck),
    )


def outlook(
    joined: QualityMatrix,
    experts: Sequence[str],
    rows: Sequence[str],
    before: dict[str, str],
    after: dict[str, str],
    expert: str,
    luck: Float64Array,
) -> tuple[CategoryOutlook, ...]:
    """Return every category, sorted by the new expert's advantage, largest first."""
    found = []
    for row, category in enumerate(rows):
        now = experts.index(before[category])
        difference = float(joined.quality[row, -1] - joined.quality[row, now])
        found.append(
            CategoryOutlook(
                category=category,
                count=int(joined.count[row, -1]),
                quality=float(joined.quality[row, -1]),
                quality_stderr=float(joined.stderr[row, -1]),
                serves=before[category],
                difference=difference,
                stderr=math.hypot(float(joined.stderr[row, -1]), float(joined.stderr[row, now])),
                takes=after[category] == expert,
                luck=float(luck[row]),
            )
        )
    return tuple(sorted(found, key=lambda row: -row.difference))
