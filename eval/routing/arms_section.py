"""Arms and methods, as a section of the page: how each way of choosing scores, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from eval.report import charts
from eval.report.numbers import (
    billions,
    cell_of,
    dollars,
    microseconds,
    percent,
    percent_range,
    points,
    seconds,
    whole_percent,
)
from eval.report.page import Block, Cell, Chart, Columns, Note, Section, Spec, Table, table_of
from eval.routing.budget_section import ROLE_OF_ARM, ROLES
from eval.routing.routing_records import Arm, MethodRecord, Report
from eval.routing.routing_words import out_of_fold_sentence

A = TypeVar("A", bound=Arm)

COST_WORDS = {
    "recorded": "as recorded with the outcomes",
    "estimated": "estimated from list prices and the lengths of prompt and answer",
    "unknown": "unknown",
}


def scores_section(report: Report) -> Section:
    """Reference arms, and every method beside them."""
    tested = "same test query" if report.data.n_test == 1 else f"same {report.data.n_test:,} test queries"
    caption = (
        f"Mean score on the {tested}, with 95% bootstrap intervals over queries. Arms in the hindsight colour look "
        "at the answers: a ceiling, not a choice that can be made."
    )
    blocks: list[Block] = [
        Chart("chart-arms", arms_chart(report), caption),
        arms_table(report),
        Note(arms_note(report)),
        *([] if report.out_of_fold is None else [out_of_fold_sentence(report.out_of_fold)]),
    ]
    if report.methods:
        is_named = report.data.method is not None
        chosen = "The default was chosen without the test queries."
        blocks += [
            methods_table(report),
            method_costs_table(report),
            Note(
                f"{'This router is of the kind that the command names.' if is_named else chosen} Deciding is timed "
                "after the embedding. The calibration error compares the predicted score of the chosen expert with the "
                "real one."
            ),
        ]
    return Section("scores", "Arms and methods", blocks)


def arms_chart(report: Report) -> Spec:
    found: list[tuple[Arm, str]] = [(arm, ROLE_OF_ARM.get(name, "reference")) for name, arm in report.arms.items()]
    found += [(method, "method") for method in report.methods.values()]
    rows: list[Spec] = [
        {
            "name": arm.label,
            "group": role,
            "score": 100 * arm.mean_score,
            "low": 100 * arm.interval[0],
            "high": 100 * arm.interval[1],
            "text": percent(arm.mean_score),
            "how": arm.how,
        }
        for arm, role in sorted(found, key=lambda pair: -pair[0].mean_score)
    ]
    looks = {role: look for role, look in ROLES.items() if any(row["group"] == role for row in rows)}
    return charts.dot_rows(rows, "mean score (%), with 95% interval", looks, has_labels=True)


def by_score(arms: Mapping[str, A]) -> dict[str, A]:
    """Arms with the best first."""
    return dict(sorted(arms.items(), key=lambda pair: -pair[1].mean_score))


def arms_table(report: Report) -> Table:
    columns: Columns[Arm] = {
        "Mean score": lambda _, arm: percent(arm.mean_score),
        "95% interval": lambda _, arm: percent_range(arm.interval),
        "Router minus arm": lambda name, _: cell_of(report.gain.get(name), points),
        "Active parameters": lambda _, arm: billions(arm.mean_active_params_b),
        "Cost per 1,000 queries": lambda _, arm: dollars(arm.mean_cost_usd),
    }
    if any(arm.mean_calls != 1 for arm in report.arms.values()):
        columns = {**columns, "experts asked": lambda _, arm: f"{arm.mean_calls:.2f}"}
    arms, caption = by_score(report.arms), "Reference arms"
    return table_of("Arm", arms, columns, caption=caption, label=lambda _, arm: arm.label, how=how_of, own="coe")


def how_of(arm: Arm) -> str:
    return f"{arm.how}; held by {', '.join(arm.binding)}" if arm.binding else arm.how


def arms_note(report: Report) -> str:
    """The note on how differences and costs were counted."""
    facts = report.data
    text = (
        "Differences are paired: both arms are averaged over the same resampled queries. Cost is "
        f"{COST_WORDS[facts.cost]}"
    )
    if facts.cost_filled:
        text += f"; {percent(facts.cost_filled)} of the costs are unknown and count as the mean of their expert"
    unpriced = sum(row.mean_cost_usd is None for row in report.experts)
    if facts.cost != "unknown" and unpriced:
        text += (
            f"; it is unknown of {unpriced} of the {len(facts.experts)} experts, and of every choice that may take one "
            "of them"
        )
    if not facts.budgets:
        return f"{text}."
    return (
        f"{text}. This router, the methods and the arms that say so were chosen to keep to the budget on average, each "
        "expert counted with its mean on the fit queries; the last columns show what was used on the test queries. The "
        "others were chosen without a budget."
    )


def methods_table(report: Report) -> Table:
    mark = "default" if report.data.method is None else "named"
    columns: Columns[MethodRecord] = {
        "Mean score": lambda _, method: Cell(percent(method.mean_score), percent_range(method.interval)),
        "Gap closed": lambda _, method: cell_of(method.gap_closed, whole_percent),
        "Minus best single": lambda _, method: cell_of(method.gain["best_single"], points),
        "Minus best single in hindsight": lambda _, method: cell_of(method.gain["best_single_hindsight"], points),
        "Minus map on true labels": lambda _, method: cell_of(method.gain["map_true"], points),
        "Minus k-NN": lambda _, method: cell_of(method.gain["knn"], points),
        "Minus this router": lambda _, method: cell_of(method.gain["coe"], points),
    }
    return table_of(
        "Method",
        by_score(report.methods),
        columns,
        caption="Methods, fitted on the fit queries: mean score, and points above other choices on the same queries",
        label=lambda _, method: f"{method.label} ({mark})" if method.is_default else method.label,
        how=how_of,
        own=default_method(report),
    )


def default_method(report: Report) -> str | None:
    return next((name for name, method in report.methods.items() if method.is_default), None)


def method_costs_table(report: Report) -> Table:
    ece = {name: found.ece for name, found in report.calibration.items()}
    columns: Columns[MethodRecord] = {
        "On validation": lambda _, method: percent(method.valid_score),
        "Fit": lambda _, method: seconds(method.fit_s),
        "Decide one query": lambda _, method: microseconds(method.decide_us),
        "Active parameters": lambda _, method: billions(method.mean_active_params_b),
        "Cost per 1,000": lambda _, method: dollars(method.mean_cost_usd),
        "Calibration error": lambda name, _: percent(ece.get(name)),
        "AIQ": lambda name, _: cell_of(report.aiq.get(name)),
        "RouterArena": lambda name, _: cell_of(report.router_arena.get(name)),
    }
    methods, own = by_score(report.methods), default_method(report)
    caption = "What the methods cost"
    return table_of("Method", methods, columns, caption=caption, label=lambda _, method: method.label, own=own)
