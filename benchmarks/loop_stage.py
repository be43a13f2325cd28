"""Routers of the simulated loop: stage 1, fitted once, with whatever evidence a round has.

Shapes: k categories, m experts of the world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from benchmarks.loop_fleet import (
    CALM,
    Float64Array,
    IntArray,
    Voices,
    World,
)
from benchmarks.loop_judge import Opinions
from coe.cli.progress import silent
from coe.router.build import MeasuredExperts, assemble, build_encoder, solved_policy
from coe.router.capabilities import Capabilities
from coe.router.config.policy import PolicyConfig
from coe.router.pipeline import Router
from coe.router.policy.map_solver import ExpertCosts
from coe.router.quality import Measured, QualityMatrix
from coe.router.scorers.map import MapScorer
from coe.router.section import PluginConfig
from coe.training.expert_map import measure_quality
from coe.training.fit import artifact_of, prepare
from coe.training.learned_map import explored_shares
from coe.training.scorer_fit import FittedScorer
from coe.training.stage_one import FitRequest
from coe.training.types import OutcomeTable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALPHA = 0.1
EXPLORATION = 0.002
MAP = FittedScorer(PluginConfig(kind="map"), {}, {}, {})


@dataclass(frozen=True)
class Settings:
    """`retrain_every` decisions; who rates, and who judges."""

    retrain_every: int = 500
    exploration: float = EXPLORATION
    voices: Voices = CALM
    judge: Opinions | None = None


@dataclass(frozen=True)
class Stage:
    """Stage 1, fitted once, as a router without evidence; `row_of` is the row that it decides for each text."""

    router: Router
    row_of: Mapping[str, int]

    def rows(self, table: OutcomeTable) -> IntArray:
        return np.array([self.row_of[text] for text in table.texts])


def fit_stage(world: World, config: PluginConfig, rng: np.random.Generator) -> Stage:
    """Args:
    config: of the encoder that made the world's vectors.
    """
    experts = world.probes.experts
    request = FitRequest(
        encoder_config=config,
        classifier=PluginConfig(kind="logistic"),
        scorer=PluginConfig(kind="map"),
        categories=world.categories,
        experts=experts,
        evidence=measure_quality(world.probes, world.categories),
        alpha=ALPHA,
        data_fingerprints={},
        is_holding_out=False,
    )
    prepared = prepare(request, build_encoder(config), world.queries, rng, silent)  # it reads what no table holds
    router = assemble(
        artifact_of(request, world.encoder, prepared, MAP, NOW),
        world.encoder,
        measured_by(request.evidence, experts),
        policies={"default": PolicyConfig()},
        alpha=ALPHA,
        scorer=PluginConfig(kind="map"),
    )
    texts = (*world.probes.texts, *world.traffic.texts)
    vectors = world.encoder.encode(texts)
    rows = np.array([judged.row for judged in router.judge(vectors, router.predict_categories(vectors))])
    return Stage(router, dict(zip(texts, rows.tolist(), strict=True)))


def measured_by(evidence: QualityMatrix, experts: tuple[str, ...]) -> MeasuredExperts:
    """Experts that cost nothing."""
    free, m = np.zeros(evidence.quality.shape, dtype=np.float32), len(experts)
    zeros = np.zeros(m, dtype=np.float32)
    costs = ExpertCosts(zeros, np.arange(m), zeros, zeros, free, free)
    return MeasuredExperts(experts, evidence, costs, {name: Capabilities() for name in experts}, {})


def router_of(
    stage: Stage,
    evidence: QualityMatrix,
    experts: tuple[str, ...],
    settings: Settings,
) -> Router:
    """A router with this evidence, as its artifact would be loaded."""
    measured = measured_by(evidence, experts)
    policy = solved_policy(
        PolicyConfig(exploration=settings.exploration), stage.router.categories, measured, None, None
    )
    return replace(
        stage.router,
        scorer=MapScorer(Measured(experts, evidence)),
        experts=experts,
        policies={"default": policy},
        capabilities=measured.capabilities,
        costs=measured.costs,
    )


def wanted_by(router: Router, world: World) -> IntArray:
    """(k+1,) number, in the world, of the expert that a router wants in each row."""
    names = world.traffic.experts
    return np.array([names.index(expert) for expert in router.expert_of().values()])


def shares_of(router: Router, world: World) -> Float64Array:
    """(k+1, m) shares of the world's experts in each row, explored ones included."""
    found = np.zeros((len(router.categories), len(world.traffic.experts)))
    for row, shares in enumerate(explored_shares(router, "default")):
        for name, share in shares.items():
            found[row, world.traffic.experts.index(name)] = share
    return found
