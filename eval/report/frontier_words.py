"""What the frontiers say, in words and as one number per choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.frontier import first_reaching
from eval.report.schema import FrontierPoint, Range, Report
from eval.report.words import (
    BUDGET_AXES,
    FEWEST_DRAWN,
    amount,
    counted,
    curve_label,
    draws_curves,
    leading_method,
    percent,
    points,
    points_range,
)


@dataclass(frozen=True)
class OneNumber:
    """AIQ and RouterArena score of a choice, in [0, 1]; None where it has none."""

    label: str
    aiq: float | None
    aiq_interval: Range | None
    arena: float | None
    arena_interval: Range | None
    is_own: bool


def one_number(report: Report) -> list[OneNumber]:
    """Every choice that has either, by RouterArena score."""
    names = [*report.router_arena, *(name for name in report.aiq if name not in report.router_arena)]
    found = [
        OneNumber(
            label=report.arms[name].label if name in report.arms else curve_label(report, name),
            aiq=report.aiq.get(name),
            aiq_interval=report.aiq_interval.get(name),
            arena=report.router_arena.get(name),
            arena_interval=report.router_arena_interval.get(name),
            is_own=name == "coe",
        )
        for name in names
    ]
    return sorted(found, key=lambda row: (-(row.arena or 0.0), -(row.aiq or 0.0)))


def frontier_sentences(report: Report) -> list[str]:
    """For each budget: the largest certain gain over the mixture, and where the best single expert's quality is met; of
    a sample that is too small for that, one sentence which says so."""
    if report.frontier and not draws_curves(report):
        return [
            f"Quality over budgets is not shown: from {counted(report.data.n_test, 'test query', 'test queries')} a "
            f"larger budget can seem to buy less. It is from {FEWEST_DRAWN} test queries on; report.json has what was "
            "measured."
        ]
    lead = leading_method(report)
    found = []
    for budget, curves in report.frontier.items():
        name = lead if lead in curves else "map" if "map" in curves else None
        if name is not None and budget != "hosted_params_b":
            found.append(f"{BUDGET_AXES[budget].name}: {gain_sentence(report, budget, name)}")
    return found


def gain_sentence(report: Report, budget: str, name: str) -> str:
    """Of one curve against the mixture."""
    curve = report.frontier[budget][name]
    label = curve_label(report, name)
    best = max(curve, key=lambda point: point.gain.interval[0] if point.gain else -1.0)
    said = f"{label} is nowhere clearly above the best fixed mixture of experts."
    if best.gain is not None and best.gain.interval[0] > 0:
        said = (
            f"{label} is furthest above the best fixed mixture of experts at {amount(best.amount, budget)}, by "
            f"{points(best.gain.mean)} points ({points_range(best.gain.interval)})."
        )
    return f"{said} {single_sentence(report, budget, label, curve)}"


def single_sentence(report: Report, budget: str, label: str, curve: Sequence[FrontierPoint]) -> str:
    """How much is needed to be as good as the best single expert."""
    single = report.arms["best_single"]
    spent = {"active_params_b": single.mean_active_params_b, "cost_usd": single.mean_cost_usd}[budget]
    known = f" at {amount(spent, budget)}" if spent is not None else ""
    target = f"The best single expert's {percent(single.mean_score)}{known}"
    reached = first_reaching(curve, single.mean_score)
    if reached is None:
        top = max(point.mean_score for point in curve)
        return f"{target} is not reached at any budget; the most is {percent(top)}."
    return f"{target} is reached with {amount(reached.amount, budget)}."
