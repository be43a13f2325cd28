"""The output of the training commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from coe.base.errors import RouterError
from coe.cli.terminal import Grid, Terminal
from coe.fleet.router_registry import Registry
from coe.router.types import GENERAL, Metric

if TYPE_CHECKING:
    from coe.retrieval.training.pilot_refresh import PilotRefresh
    from coe.router.model_files.artifact import RouterArtifact
    from coe.training.retrain import RetrainResult


def result_console() -> Terminal:
    """Return a console that prints sentences whole; a terminal wraps them by itself."""
    return Terminal(soft_wrap=True)


def with_interval(metric: Metric, form: str = ".3f") -> str:
    """Format a metric as in `0.912 [0.871, 0.941] n=180`."""
    text = format(metric.value, form)
    if metric.interval is not None:
        text += f" [{metric.interval.low:{form}}, {metric.interval.high:{form}}]"
    return text + (f" n={metric.n}" if metric.n is not None else "")


def in_points(metric: Metric | None, form: str = "z,.1f") -> str:
    """Format a metric in hundredths as in `1.8 [0.6, 3.4]`; None is empty."""
    return "" if metric is None else with_interval(metric.times(100).model_copy(update={"n": None}), form)


def print_router(artifact: RouterArtifact, config: Path) -> None:
    """Print version, parents, metrics, the measured quality behind the map, the map as solved for experts.yaml, and
    a warning if the grades look wrong."""
    from coe.router.build import configured_router, evidence_of
    from coe.router.config.composition import load_config
    from coe.training.expert_map import doubt_of
    from coe.training.learned_map import measure_learning

    console, manifest = result_console(), artifact.manifest
    console.print(f"router {manifest.version}, {manifest.created_at}")
    console.print(f"parents: {', '.join(manifest.parents) or 'none'}")
    console.print(f"encoder {manifest.encoder.kind} ({manifest.encoder.dim} dimensions), ", end="")
    console.print(f"classifier {manifest.classifier.kind}")
    for name, metric in manifest.metrics.items():
        console.print(f"  {name}: {with_interval(metric)}")
    try:
        router = configured_router(load_config(config), artifact)
        console.print(quality_table(artifact, router.expert_of()))
        console.print(measure_learning(artifact, router).summary)
    except RouterError as error:
        console.print(quality_table(artifact, {}))
        console.print(f"{config} cannot be served by this router: {error}")
    if doubt := doubt_of(evidence_of(artifact)):
        console.print(doubt)


def quality_table(artifact: RouterArtifact, serves: Mapping[str, str]) -> Grid:
    """Build a table of categories: each expert's shrunk mean score, in bold for the serving one (category ->
    expert), and the number of graded answers."""
    from coe.router.build import evidence_of

    manifest, evidence = artifact.manifest, evidence_of(artifact)
    title = "measured quality (shrunk mean score), and the serving expert: a gain within half its error does not count"
    table = Grid(title=title, title_justify="left")
    table.add_column("category")
    for expert in manifest.experts:
        table.add_column(expert, justify="right")
    table.add_column("graded", justify="right")
    table.add_column("serves")
    for row, category in enumerate((*manifest.categories, GENERAL)):
        own = serves.get(category, "")
        scores = zip(manifest.experts, evidence.quality[row], strict=True)
        cells = [Text(f"{q:.2f}", "bold" if name == own else "") for name, q in scores]
        table.add_row(category, *cells, f"{int(evidence.count[row].sum())}", own)
    return table


def print_routers(registry: Registry) -> None:
    """Print one line per router, the newest last."""
    live = registry.live()
    trial = live.trial if live is not None else None
    table = Grid("version", "role", "created", "parents", "category accuracy", "experts")
    for manifest in registry.versions():
        accuracy = manifest.metrics.get("category_accuracy")
        table.add_row(
            manifest.version,
            "" if live is None else live.part_of(manifest.version),
            manifest.created_at[:16].replace("T", " "),
            ", ".join(parent[:8] for parent in manifest.parents) or "-",
            with_interval(accuracy) if accuracy else "-",
            str(len(manifest.experts)),
        )
    console = result_console()
    console.print(table)
    if trial is not None:
        began = datetime.fromtimestamp(trial.started_at, UTC).strftime("%Y-%m-%d %H:%M")
        console.print(f"on trial since {began} UTC: {trial.version}")
    for gone in live.withdrawn if live is not None else ():
        console.print(f"withdrawn {gone.at[:16]}: {gone.version}: {gone.reason}")
    for name, problem in registry.damaged().items():
        console.print(f"damaged: {name}: {problem}")


def challenger_rows(result: RetrainResult) -> Grid:
    """Build a table of the challengers: their estimated gain in points over the serving expert, and their capital."""
    title = "challengers, which answer most of their category's queries"
    table = Grid(
        "category", "serves", "challenger", "estimated gain, points", "evidence", title=title, title_justify="left"
    )
    for one in result.challengers:
        table.add_row(one.category, one.serves, one.expert, f"{100 * one.lead:+.1f}", f"{one.capital:.3g}")
    return table


def print_round(chat: RetrainResult | RouterError, pilots: PilotRefresh | RouterError | None, *, as_json: bool) -> None:
    """Print the result of a round of `coe retrain`; JSON contains a failed part's error, which the caller raises."""
    if as_json:
        result_console().print_json(json.dumps(round_json(chat, pilots)))
        return
    if not isinstance(chat, RouterError):
        print_retrain(chat)
    if pilots is not None and not isinstance(pilots, RouterError):
        print_pilots(pilots)


def round_json(chat: RetrainResult | RouterError, pilots: PilotRefresh | RouterError | None) -> dict[str, object]:
    """Return the round as plain values; without a pilot library there is no key `retrieval`."""
    values: dict[str, object] = {"error": str(chat)} if isinstance(chat, RouterError) else retrain_json(chat)
    if isinstance(pilots, RouterError):
        values["retrieval"] = {"error": str(pilots)}
    elif pilots is not None:
        values["retrieval"] = pilots_json(pilots)
    return values


def print_retrain(result: RetrainResult) -> None:
    """Print what was used and dropped, the challengers, the decision with its reason, and the gain of learning."""
    from coe.decision_log.read import ASKED_BY_COE

    console = result_console()
    n_probes = result.log.dropped.get(ASKED_BY_COE, 0)
    beside = f" ({n_probes} probes by coe itself not counted)" if n_probes else ""
    console.print(
        f"read {result.log.n_rows} decisions{beside}: {result.n_learned} with feedback; "
        f"{result.n_outcomes} graded outcomes",
    )
    if result.n_failures:
        console.print(f"  {result.n_failures} of them failed, which counts as a reward of 0")
    if result.log.judged is not None:
        console.print(f"  and {len(result.log.judged) // 2} pairs of answers that a judge compared")
    print_quality_changes(console, result)
    for reason, count in sorted(result.log.dropped.items() - {(ASKED_BY_COE, n_probes)}):
        console.print(f"  left out: {count} ({reason})")
    if (stage := result.stage) is not None:
        if stage.mix is not None:
            console.print(f"  {mix_sentence(stage.mix, is_followed=stage.is_mix_followed)}")
        change = with_interval(stage.difference, "+.3f")
        console.print(f"  category accuracy: {with_interval(stage.live)}, of stage 1 fitted anew {change} more")
    if result.challengers:
        console.print(challenger_rows(result))
    console.print(f"router {result.live}" + (f", now {result.candidate}" if result.candidate != result.live else ""))
    console.print(result.reason)
    console.print(result.progress.summary)
    if result.is_promoted:
        console.print(f"router {result.candidate} is live; `coe router --back` goes back")


def mix_sentence(moved: Metric, *, is_followed: bool) -> str:
    """Describe the distance of the mix in a sentence."""
    low, high = (moved.interval.low, moved.interval.high) if moved.interval else (0.0, 1.0)
    follows = "stage 1's prior follows it" if is_followed else "stage 1 expects the mix of the labelled queries"
    return (
        f"The mix of categories is {moved.value:.2f} [{low:.2f}, {high:.2f}] from that of the labelled queries "
        f"(total variation, {moved.n:,} queries); {follows}."
    )


def print_quality_changes(console: Terminal, result: RetrainResult) -> None:
    """Print the experts whose quality changed and the evidence that was discarded because of it."""
    for change in result.quality_changes:
        if change.model:
            continue
        day = datetime.fromtimestamp(change.at, UTC).strftime("%Y-%m-%d %H:%M")
        console.print(
            f"  quality changed: {change.expert} on {change.category}, {day} UTC: mean reward {change.before:.2f} -> "
            f"{change.after:.2f}",
        )
    for replaced in result.log.model_changes:
        day = datetime.fromtimestamp(replaced.at, UTC).strftime("%Y-%m-%d %H:%M")
        console.print(
            f"  model changed: {replaced.expert} is answered by {replaced.after} since {day} UTC, before by "
            f"{replaced.before}",
        )
    if result.quality_changes:
        console.print(
            f"  left out: {result.n_outdated} rated answers and {result.n_outdated_grades} grades from before a change",
        )


def retrain_json(result: RetrainResult) -> dict[str, object]:
    """Return the result as plain values."""
    stage = result.stage
    return {
        "verdict": result.verdict,
        "reason": result.reason,
        "progress": result.progress.summary,
        "is_promoted": result.is_promoted,
        "live": result.live,
        "candidate": result.candidate,
        "changes": [asdict(change) for change in result.moves],
        "challengers": [asdict(one) for one in result.challengers],
        "capital": result.capital,
        "bets": result.n_bets,
        "since": result.since,
        "won": result.progress.model_dump(),
        "decisions": result.log.n_rows,
        "learned_from": result.n_learned,
        "failures": result.n_failures,
        "dropped": dict(result.log.dropped),
        "quality_changes": [asdict(change) for change in result.quality_changes],
        "outdated": {"rated_answers": result.n_outdated, "grades": result.n_outdated_grades},
        "graded_outcomes": result.n_outcomes,
        "category_accuracy": None
        if stage is None
        else {name: getattr(stage, name).model_dump() for name in ("live", "candidate", "difference")},
    }


def print_pilots(result: PilotRefresh) -> None:
    """Print which searches with feedback were used and dropped, the comparison, and the pilot library's fate."""
    say = result_console().print
    say(
        f"pilots: {result.n_train} queries with feedback in {result.stores} vector stores to learn from, "
        f"{result.n_dev} held out to judge"
    )
    for reason, count in sorted(result.dropped.items()):
        say(f"  left out: {count} ({reason})")
    if result.before is not None and result.after is not None:
        say(f"  mean nDCG@10: {result.before:.3f} as it is served, {result.after:.3f} refreshed, n={result.n_dev}")
    say(f"pilot library {result.old or 'none'}" + (f", refreshed {result.new}" if result.new else ""))
    say(f"pilots: {result.reason}")
    if result.is_promoted:
        say(f"pilot library {result.new} is written; running gateways take it over within seconds")


def pilots_json(result: PilotRefresh) -> dict[str, object]:
    """Return the result as plain values."""
    return {
        "verdict": result.verdict,
        "reason": result.reason,
        "is_promoted": result.is_promoted,
        "old": result.old,
        "new": result.new,
        "stores": result.stores,
        "learned_from": result.n_train,
        "held_out": result.n_dev,
        "dropped": dict(result.dropped),
        "ndcg_at_10": {
            "before": result.before,
            "after": result.after,
            "n": result.n_dev,
            "difference": None if result.difference is None else result.difference.model_dump(),
        },
        "more_searches": result.more_searches,
    }
