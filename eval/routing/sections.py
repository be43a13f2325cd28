"""All sections of a report at once."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from eval.routing.budget_curves import MAP, Frontier, build_aiq, build_frontier, build_hull, points_of
from eval.routing.diagnostics import Cells, Routed, diagnose
from eval.routing.lost import build_lost
from eval.routing.method_records import build_methods, build_router_arena
from eval.routing.reliability import build_calibration, build_confusion
from eval.routing.routing_records import (
    Calibration,
    CheapStrong,
    Confusion,
    Diagnostics,
    FrontierPoint,
    LostQuery,
    MethodRecord,
    Range,
)
from eval.routing.section_inputs import SectionInputs
from eval.routing.strong_calls import build_cheap_strong


class Sections(TypedDict):
    """Fields of `Report`, to be passed on as `Report(..., **sections)`."""

    methods: dict[str, MethodRecord]
    frontier: dict[str, dict[str, tuple[FrontierPoint, ...]]]
    calibration: dict[str, Calibration]
    confusion: Confusion | None
    cheap_strong: CheapStrong | None
    diagnostics: Diagnostics | None
    lost: tuple[LostQuery, ...]
    aiq: dict[str, float]
    aiq_interval: dict[str, Range]
    hull: tuple[tuple[float, float], ...]
    router_arena: dict[str, float]
    router_arena_interval: dict[str, Range]


def build_sections(inputs: SectionInputs, rng: np.random.Generator) -> Sections:
    """Every section that the inputs allow."""
    methods = build_methods(inputs, rng)
    frontier = build_frontier(inputs, rng)
    aiq, aiq_interval = build_aiq(inputs, frontier, rng)
    arena = build_router_arena(inputs, rng)
    return Sections(
        methods=methods,
        frontier=points_of(frontier),
        calibration=build_calibration(inputs),
        confusion=build_confusion(inputs.categories, inputs.likely),
        cheap_strong=build_cheap_strong(inputs, rng),
        diagnostics=build_diagnostics(inputs, frontier),
        lost=build_lost(inputs),
        aiq=aiq,
        aiq_interval=aiq_interval,
        hull=build_hull(inputs, frontier),
        router_arena={name: score for name, (score, _) in arena.items()},
        router_arena_interval={name: interval for name, (_, interval) in arena.items()},
    )


def build_diagnostics(inputs: SectionInputs, frontier: Frontier) -> Diagnostics | None:
    """None without the evidence that the map was solved from."""
    if inputs.evidence is None:
        return None
    routed = Routed(
        chosen=inputs.chosen,
        scores=inputs.scores,
        categories=inputs.categories,
        is_fallback=inputs.is_fallback,
        expert_of=inputs.expert_of,
        experts=inputs.experts,
    )
    own = inputs.default.name if inputs.default else MAP
    curves = points_of(frontier).get("active_params_b", {})
    points = curves.get(own, curves.get(MAP, ()))
    return diagnose(routed, Cells(inputs.evidence.categories, inputs.evidence.count), points, inputs.sizes_b)
