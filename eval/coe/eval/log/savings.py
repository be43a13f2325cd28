"""The savings that routing would have brought, estimated on the log of another gateway.

Shapes: n calls, k + 1 rows of the map (`general` last), m experts of the live router.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from coe.base.money import money
from coe.cli.progress import Progress
from coe.decision_log.decision_record import undated
from coe.eval.log.foreign_logs import Call
from coe.eval.metrics.intervals import DRAWS, bootstrap_means, percentile_interval
from coe.eval.report.numbers import percent, points, shares
from coe.eval.report.page import Figure, InTable, Page, Section, cell_of, cite, facts_of, record_table
from coe.router.build import evidence_of, typical_lengths
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import ExpertConfig
from coe.router.model_files.artifact import RouterArtifact
from coe.router.pipeline import Router
from coe.router.prices.cost import PROMPT, cost
from coe.router.quality import QualityMatrix
from coe.router.types import GENERAL, BoolArray, Float64Array, IntArray, Metric, Query, QueryBatch, QueryFacts, Record


class SavedGroup(Record):
    """The calls of one category or model, or all. Costs are means in USD per 1,000 calls whose logged and routed
    costs are both known. `gained` is the predicted quality in [0, 1] of the routed expert less the logged one, over
    calls whose model is a measured expert. `goes_to` has shares."""

    name: str
    n: Annotated[int, InTable("Calls")]
    n_priced: int
    cost_usd: Annotated[float | None, InTable("Cost per 1,000", money)]
    routed_usd: Annotated[float | None, InTable("Routed", money)]
    saved_usd: Annotated[Metric | None, InTable("Saved", money, is_difference=True)]
    n_predicted: int
    gained: Annotated[Metric | None, InTable("Quality, points", points, is_difference=True)]
    goes_to: Annotated[dict[str, float], InTable("Goes to", shares)]


class Savings(Record):
    """The content of report.json of `coe eval log --import`."""

    headline: str
    warnings: tuple[str, ...]
    command: str
    created_at: str
    router: str
    total: SavedGroup
    categories: tuple[SavedGroup, ...]
    models: tuple[SavedGroup, ...]
    left_out: dict[str, int]


@dataclass(frozen=True)
class RoutedCalls:
    """The calls as arrays (n,): row of the map, logged expert (-1: none of the router's), routed expert, logged and
    routed USD (NaN if unknown). `evidence` and `has_price` (m,) describe the experts, in order."""

    names: tuple[str, ...]
    rows: tuple[str, ...]
    row: IntArray
    served: IntArray
    routed: IntArray
    cost_usd: Float64Array
    routed_usd: Float64Array
    evidence: QualityMatrix
    has_price: BoolArray

    def group(self, name: str, keep: BoolArray) -> SavedGroup:
        """Measure the calls of a mask (n,) under a name."""
        rng = np.random.default_rng(0)
        then, routed = self.cost_usd[keep] * 1000, self.routed_usd[keep] * 1000
        priced = np.isfinite(then) & np.isfinite(routed)
        known = keep & (self.served >= 0)
        row, served, chosen = self.row[known], self.served[known], self.routed[known]
        gained = (self.evidence.quality[row, chosen] - self.evidence.quality[row, served]).astype(np.float64)
        shares = np.bincount(self.routed[keep], minlength=len(self.names)) / max(int(keep.sum()), 1)
        return SavedGroup(
            name=name,
            n=int(keep.sum()),
            n_priced=int(priced.sum()),
            cost_usd=float(then[priced].mean()) if priced.any() else None,
            routed_usd=float(routed[priced].mean()) if priced.any() else None,
            saved_usd=mean_with_interval((then - routed)[priced], 0.0, rng),
            n_predicted=int(known.sum()),
            gained=mean_with_interval(gained, self.error(row, served, chosen), rng),
            goes_to={self.names[e]: float(shares[e]) for e in np.argsort(-shares) if shares[e] > 0},
        )

    def error(self, row: IntArray, served: IntArray, chosen: IntArray) -> float:
        """Return the standard error of the mean gain due to the errors of the measured cells: each cell errs once,
        for all of its calls."""
        weight = np.zeros(self.evidence.quality.shape)
        np.add.at(weight, (row, chosen), 1 / max(len(row), 1))
        np.add.at(weight, (row, served), -1 / max(len(row), 1))
        return float(np.sqrt(((weight * self.evidence.stderr) ** 2).sum()))


def mean_with_interval(values: Float64Array, error: float, rng: np.random.Generator) -> Metric | None:
    """Return the mean of values (n,), or None if there is none. Its interval covers the bootstrap error and a normal
    error that all values share."""
    if len(values) == 0:
        return None
    draws = bootstrap_means(values[:, None], rng)[:, 0] + rng.normal(0.0, error, DRAWS)
    low, high = percentile_interval(draws)
    return Metric.within(low, float(values.mean()), high, len(values))


def route_calls(
    router: Router,
    artifact: RouterArtifact,
    config: CoeConfig,
    calls: Sequence[Call],
    policy: str,
    progress: Progress,
) -> RoutedCalls:
    """Route each call under a policy, and price the call as logged and as routed. The artifact is the router's own.
    Raise ConfigError if the policy is unknown."""
    router.policy(policy)  # refuses an unknown name before any work
    queries, vectors = [], []
    for i, call in enumerate(calls):
        if i % 500 == 0:
            progress(f"routing {i:,} of {len(calls):,} calls")
        query = Query(str(i), call.asks[0], QueryFacts(prompt_chars=sum(map(len, call.asks))), call.asks[1:])
        vector, _, view, language = router.features(query)
        vectors.append(vector)
        queries.append(query.read_from(view, language))
    batch = QueryBatch(tuple(queries), np.concatenate(vectors))
    made = router.decide_batch(batch, rng=np.random.default_rng(0), policy=policy)
    known, rows = artifact.manifest.experts, (*artifact.manifest.categories, GENERAL)
    names = tuple(name for name in router.experts if name in known)
    evidence = evidence_of(artifact).columns([known.index(name) for name in names])
    row = np.array([rows.index(decision.category) for decision in made], dtype=np.int64)
    routed = np.array([names.index(decision.expert) for decision in made], dtype=np.int64)
    served = np.array([served_expert(call.model, config, names) for call in calls], dtype=np.int64)
    entries = [config.experts[name] for name in names]
    has_price = np.array([sum(entry.chat_price.of_text) > 0 for entry in entries])
    then, later = costs(entries, evidence, row, served, routed, calls)
    return RoutedCalls(names, rows, row, served, routed, then, later, evidence, has_price)


def served_expert(model: str, config: CoeConfig, experts: Sequence[str]) -> int:
    """Return the number of the expert that a model's name means; -1 if there is none. The name is the expert's or
    its model's, with or without the provider and the date of a snapshot."""
    names = {form for name in (model, undated(model)) for form in (name, name.partition("/")[2]) if form}
    for number, expert in enumerate(experts):
        entry = config.experts[expert]
        own = {expert, entry.model, entry.model.partition("/")[2], entry.served_model}
        if names & own:
            return number
    return -1


def costs(
    entries: Sequence[ExpertConfig],
    evidence: QualityMatrix,
    row: IntArray,
    served: IntArray,
    routed: IntArray,
    calls: Sequence[Call],
) -> tuple[Float64Array, Float64Array]:
    """Return the USD of each call as logged (else by list price), and as routed, by list price. The prompt and its
    cached part stay the same; the answer's length is scaled by the experts' graded answers of the category."""
    lengths = typical_lengths(evidence.output_tokens).astype(np.float64)
    then, later = np.full((2, len(calls)), np.nan)
    for i, call in enumerate(calls):
        length, other = lengths[row[i], served[i]] if served[i] >= 0 else 0.0, lengths[row[i], routed[i]]
        answer = call.usage.completion_tokens or round(length)
        prompt = call.usage.prompt_tokens or sum(map(len, call.asks)) // 4
        usage = call.usage.model_copy(update={"prompt_tokens": prompt, "completion_tokens": answer})
        if call.cost_usd is not None:
            then[i] = call.cost_usd
        elif answer and served[i] >= 0:
            then[i] = cost(usage, entries[served[i]].chat_price)
        if answer:
            longer = other / length if length > 0 and other > 0 else 1.0
            kinds = {kind: n for kind, n in usage.kinds.items() if kind in PROMPT}
            usage = usage.model_copy(update={"completion_tokens": round(answer * longer), "kinds": kinds})
            later[i] = cost(usage, entries[routed[i]].chat_price)
    return then, np.where(served == routed, then, later)


def measure_savings(
    found: RoutedCalls, calls: Sequence[Call], router: str, left_out: Mapping[str, int], command: str, created_at: str
) -> Savings:
    """Build the report on at least one call."""
    models = np.array([call.model for call in calls], dtype=np.object_)
    total = found.group("all", np.ones(len(calls), dtype=bool))
    return Savings(
        headline=headline(total),
        warnings=tuple(warnings(found, models)),
        command=command,
        created_at=created_at,
        router=router,
        total=total,
        categories=by_size(found.group(found.rows[i], found.row == i) for i in np.unique(found.row)),
        models=by_size(found.group(name, models == name) for name in sorted(set(models))),
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def by_size(groups: Iterable[SavedGroup]) -> tuple[SavedGroup, ...]:
    """Sort groups by their number of calls, the largest first."""
    return tuple(sorted(groups, key=lambda one: -one.n))


def headline(total: SavedGroup) -> str:
    """State the result in two sentences."""
    saved = "What routing would have saved is unknown: no call has a cost or a model with a price."
    if total.saved_usd is not None:
        more, before = total.saved_usd.value < 0, money(total.cost_usd or 0.0)
        amount = cite(total.saved_usd.times(-1 if more else 1), money)
        saved = f"Routing would have {'cost' if more else 'saved'} an estimated {amount} "
        saved += f"{'more than' if more else 'of'} the {before} that 1,000 calls cost."
    gained = "What it would have changed in quality is unknown: no call went to a model that the router has measured."
    if total.gained is not None:
        gained = f"Predicted quality would have changed by {cite(total.gained, points, ' points')}."
    return f"{total.n:,} calls. {saved} {gained}"


def warnings(found: RoutedCalls, models: NDArray[np.object_]) -> Iterator[str]:
    """Yield the paragraphs that say what is estimated and what is unknown."""
    yield (
        "Estimated: nothing was answered again. Quality is what the router predicts from graded answers of each "
        "category, for what served and for what it would have chosen. Costs are the logged ones, else list prices; a "
        "routed answer is as much longer or shorter as that expert's graded answers are."
    )
    if unknown := sorted(set(models[found.served < 0])):
        share = percent(float(np.mean(found.served < 0)), 0)
        yield (
            f"{share} of the calls went to models that the router has not measured, so their quality is unknown: "
            f"{', '.join(unknown)}."
        )
    if free := sorted({found.names[e] for e in np.unique(found.routed) if not found.has_price[e]}):
        yield f"Without a price in experts.yaml, and so counted as free: {', '.join(free)}. Hosting costs too."


def savings_page(report: Savings) -> Page:
    """Build the page of the report."""
    total = report.total
    saved = cell_of(total.saved_usd or "unknown", money, is_difference=True)
    gained = cell_of(total.gained or "unknown", points, is_difference=True)
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in report.left_out.items())
    facts = {"Command": report.command, "Router": report.router, "Made": report.created_at, "Left out": left_out}
    title = f"Saved: {saved.text} per 1,000 calls; predicted quality: {gained.text} points"
    is_known = saved.interval or gained.interval
    return Page(
        kind="What routing would have saved",
        title=title if is_known else "What routing would have saved is unknown",
        lead=report.headline,
        figures=[
            Figure("Saved per 1,000 calls", saved),
            Figure("Predicted quality, points", gained),
            Figure("Calls of another gateway", cell_of(total.n)),
        ],
        picture=None,
        sections=[
            Section("By category", table=record_table("Category", report.categories)),
            Section("By model", table=record_table("Model then", report.models)),
            Section("How this was measured", table=facts_of(facts)),
        ],
        tone=(gained.tone or saved.tone) if gained.interval and {saved.tone, gained.tone} != {"bad", "good"} else "",
        warnings=report.warnings,
    )
