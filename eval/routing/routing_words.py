"""The findings of a routing report in sentences, and the names that readers know its parts by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.metrics.intervals import Estimate
from eval.report.numbers import billions, counted, dollars, percent, points, points_range
from eval.routing.routing_records import (
    Arm,
    CategoryFinding,
    CheapStrong,
    DataFacts,
    Diagnostics,
    FrontierPoint,
    OutOfFold,
    Power,
    Regret,
    Report,
)

PART_NAMES = {
    "beyond_categories": "Beyond categories",
    "map": "Map",
    "classifier": "Category or query",
    "serving": "Serving",
}
PART_MEANING = {
    "beyond_categories": "one expert per category is not the best expert for each query",
    "map": "the map, learned on fit data and within any budget, is not the best one for these queries",
    "classifier": "the category was mistaken or fell back to general (negative: judging each query won more)",
    "serving": "another expert answered than was decided (nothing fails offline, so 0 here)",
}


@dataclass(frozen=True)
class BudgetAxis:
    """The axis of a budget: `title` of the axis, amounts times `unit`."""

    name: str
    title: str
    unit: float = 1.0


BUDGET_AXES = {
    "active_params_b": BudgetAxis("Active parameters", "mean active parameters per query (billions)"),
    "cost_usd": BudgetAxis("Cost", "mean cost per 1,000 queries (USD)", 1000.0),
    "hosted_params_b": BudgetAxis("Hosted parameters", "parameters kept in memory (billions)"),
}
CATEGORY_CURVE = "confidence in the category"
CURVE_NAMES = {
    "map": "Map",
    "map_drawn": "Map with a draw",
    "best_mixture": "Best fixed mixture",
    "experts": "Experts alone",
}
ORDER_NAMES = {"random": "Random", "oracle": "Oracle (hindsight)"}
SHOWN_ORDERS = 3
LISTED_CATEGORIES = 6
COLLAPSED_SHARE = 0.95
"""Share of one expert at which routing is as good as off."""
FEWEST_DRAWN = 200
"""Fewest test queries for a curve over budgets: with fewer each of its points lies within some 7 points of the truth or
worse, and a larger budget seems to buy less (ours)."""
SAME_AMOUNT = 1.1
"""Ratio of the largest amount to the smallest up to which they count as the same (ours)."""
FEWEST_TOLD = 6
"""Fewest test queries that can tell two choices apart: five that all agree have p = 0.06 in a two-sided sign test, but
every resample of them agrees too, so the bootstrap interval of a few is too narrow and that of one is a point."""


def leading_method(report: Report) -> str | None:
    """The default, or the first method where none was marked; None without methods."""
    marked = [name for name, method in report.methods.items() if method.is_default]
    return next(iter(marked or report.methods), None)


def curve_label(report: Report, name: str) -> str:
    return CURVE_NAMES.get(name) or (report.methods[name].label if name in report.methods else name)


def draws_curves(report: Report) -> bool:
    """Returns True where there are enough test queries for a curve over budgets."""
    return report.data.n_test >= FEWEST_DRAWN


def is_flat(amounts: Sequence[float]) -> bool:
    """Returns True where all choices use nearly the same amount: a chart over it would show noise."""
    return max(amounts, default=0.0) <= SAME_AMOUNT * min(amounts, default=0.0)


def shown_curves(report: Report, curves: Mapping[str, tuple[FrontierPoint, ...]]) -> list[str]:
    """The leading method, the map and the mixture; the table has the other methods."""
    wanted = [leading_method(report), "map", "map_drawn", "best_mixture"]
    return [name for name in dict.fromkeys(wanted) if name is not None and name in curves]


def shown_orders(report: Report, found: CheapStrong) -> list[str]:
    """The leading method and those of highest APGR, then random and oracle."""
    lead = leading_method(report)
    methods = [name for name in found.orders if name not in ORDER_NAMES]
    apgr = {name: order.apgr.mean for name, order in found.orders.items() if order.apgr is not None}
    methods.sort(key=lambda name: (name != lead, -apgr.get(name, 0.0)))
    return [*methods[:SHOWN_ORDERS], *(name for name in ORDER_NAMES if name in found.orders)]


def call_label(report: Report, name: str) -> str:
    return ORDER_NAMES.get(name) or curve_label(report, name)


def amount(value: float, budget: str) -> str:
    """An amount of a budget: dollars per 1,000 queries, or billions of parameters."""
    return dollars(value) if budget == "cost_usd" else billions(value)


def verdict(gain: Estimate, n_test: int, power: Power | None = None) -> str:
    """One clause on the best single expert; a gain counts when its interval excludes zero, and counts as none when the
    interval lies within `power.difference`."""
    if n_test < FEWEST_TOLD:
        return "Too few queries to tell routing from the best single expert"
    if gain.interval[0] > 0:
        return "Routing beats the best single expert"
    if gain.interval[1] < 0:
        return "Routing does worse than the best single expert"
    if power is not None and max(map(abs, gain.interval)) <= power.difference:
        return f"Routing is within {100 * power.difference:.1f} points of the best single expert"
    return f"{counted(n_test, 'query', 'queries')} cannot tell routing from the best single expert"


def power_sentence(gain: Estimate, n_test: int, power: Power) -> str | None:
    """A sentence on the difference that so many queries can show, and how many are enough; None where many queries made
    the difference certain, or where there are too few queries to estimate how many."""
    is_told = gain.interval[0] > 0 or gain.interval[1] < 0 or max(map(abs, gain.interval)) <= power.difference
    if n_test < FEWEST_TOLD:
        return None
    if power.queries is None:
        return "Both answered every query equally well, which does not tell how many queries would show a difference."
    if is_told and n_test >= min(power.queries, FEWEST_DRAWN):
        return None
    takes = f"for {100 * power.difference:.1f} points it takes about {rounded_up(power.queries):,}."
    if is_told:
        return f"So few queries show only large differences; {takes}"
    if power.queries <= n_test:
        return f"A difference of {100 * power.smallest_shown:.1f} points or more would most likely have shown."
    return (
        f"So few queries show a difference of {100 * power.smallest_shown:.1f} points or more, hardly a smaller one; "
        f"{takes}"
    )


def rounded_up(count: int) -> int:
    """To two digits: an estimate has no more."""
    unit: int = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // unit) * unit


def headline(
    arms: dict[str, Arm],
    gain: dict[str, Estimate],
    gap_closed: Estimate | None,
    data: DataFacts,
    power: Power | None = None,
) -> str:
    """The findings in two or three sentences."""
    own, single, oracle = arms["coe"], arms["best_single"], arms["query_oracle"]
    name = single.label[:1].lower() + single.label[1:]
    sentences = [
        f"{verdict(gain['best_single'], data.n_test, power)}: on "
        f"{counted(data.n_test, 'held-out query', 'held-out queries')} over "
        f"{counted(len(data.experts), 'expert', 'experts')} it scores {percent(own.mean_score)}, the "
        f"{name} {percent(single.mean_score)}, a difference of "
        f"{points(gain['best_single'].mean)} points (95% interval {points_range(gain['best_single'].interval)})."
    ]
    if power is not None and (told := power_sentence(gain["best_single"], data.n_test, power)):
        sentences.append(told)
    if gap_closed is not None:
        sentences.append(
            f"That closes {percent(gap_closed.mean, 0)} of the gap to a perfect choice per query "
            f"({percent(oracle.mean_score)})."
        )
    near = "k-NN, which keeps no budget," if data.budgets else "k-NN"
    sentences.append(f"Against {near} it is {points(gain['knn'].mean)} points ({points_range(gain['knn'].interval)}).")
    if "best_mixture" in gain:
        mixed = gain["best_mixture"]
        sentences.append(
            f"Against the best fixed mixture within the budget it is {points(mixed.mean)} points "
            f"({points_range(mixed.interval)})."
        )
    return " ".join(sentences)


def out_of_fold_sentence(found: OutOfFold) -> str:
    """All prompts instead of the test split, beside both best single experts."""
    over, hindsight = found.over_best_single, found.over_hindsight
    share = found.gap_closed
    closed = "" if share is None else f" That closes {percent(share.mean, 0)} of the gap from there."
    return (
        f"Over all {counted(found.n, 'prompt', 'prompts')}, in {found.folds} parts that were each decided by a router "
        f"fitted on the others, it scores {percent(found.coe)}: {points(over.mean)} points "
        f"({points_range(over.interval)}) over the best single expert of the other parts, and {points(hindsight.mean)} "
        f"({points_range(hindsight.interval)}) over {found.hindsight}, the best of all in hindsight.{closed}"
    )


def regret_sentence(regret: Regret) -> str:
    """A sentence on the largest part of the remaining distance."""
    if regret.total.mean <= 0:
        return "Nothing: every query got an expert that answers it as well as the best one."
    largest = max(regret.parts, key=lambda name: regret.parts[name].mean)
    return (
        f"{100 * regret.total.mean:.1f} points lie between this router and the best expert for every query. The "
        f"largest part, {100 * regret.parts[largest].mean:.1f} points, is \u201c{PART_NAMES[largest].lower()}\u201d: "
        f"{PART_MEANING[largest]}."
    )


def diagnosis(found: Diagnostics) -> list[tuple[str, bool, str]]:
    """Name, whether it is fine, and a sentence for each sign."""
    rare = f", and {len(found.rare)} serve less than 1%: {', '.join(found.rare)}" if found.rare else ""
    signs = [
        (
            "Collapse",
            found.top_share < COLLAPSED_SHARE,
            f"{found.top_expert} serves {percent(found.top_share)} of the queries{rare}. The entropy of the shares is "
            f"{found.routing_entropy:.2f}, where 0 is one expert for all and 1 all experts alike.",
        )
    ]
    if found.is_largest_always is not None:
        only = "A larger budget only ever buys the largest expert." if found.is_largest_always else ""
        signs.append(("Budget", not only, only or "A larger budget buys more than the largest expert."))
    if found.degraded:
        text = f"General receives most of {listed(found.degraded)}."
    else:
        text = "General receives most queries of no category."
    signs.append(("Degradation", not found.degraded, text))
    if found.underused:
        text = f"General serves more, although the map's expert is better, of {listed(found.underused)}."
    else:
        text = "No category's better expert serves less than general."
    signs.append(("Underuse", not found.underused, text))
    text = f"Every cell of the map has at least {found.needed_per_cell} graded answers."
    if found.n_thin:
        text = f"{found.n_thin} cells of the map have fewer than {found.needed_per_cell} graded answers."
    signs.append(("Thin cells", not found.n_thin, text))
    return signs


def listed(findings: Sequence[CategoryFinding]) -> str:
    """The largest categories with their shares, and how many more there are."""
    shown = [f"{row.category} ({percent(row.share, 0)} of {row.n})" for row in findings[:LISTED_CATEGORIES]]
    more = len(findings) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
