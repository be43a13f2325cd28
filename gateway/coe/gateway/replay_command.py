"""`coe replay`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.errors import ConfigError
from coe.base.visible_text import echo
from coe.cli.options import ConfigOption, DataOption, JsonOption, SinceOption
from coe.decision_log.connections import opened_database
from coe.decision_log.privacy import load_key

if TYPE_CHECKING:
    from coe.cli.terminal import Grid
    from coe.decision_log.database import Database
    from coe.decision_log.decision_record import DecisionRecord
    from coe.gateway.replay import CandidateReport, Replay
    from coe.router.pipeline import Router

MAX_VALUE_CHARS = 100


NEWEST = 5000
"""Decisions that another router makes again at most."""

EXAMPLES = 10
"""Of decisions that another router would have made, which are shown."""


def replay(
    decision_id: Annotated[str | None, typer.Argument(help="decision to make again")] = None,
    diff: Annotated[
        str | None, typer.Option("--diff", metavar="CANDIDATE", help="router version to compare with the log")
    ] = None,
    since: SinceOption = 0.0,
    as_json: JsonOption = False,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
) -> int:
    """Make a logged decision again, bit for bit; or show what another router would have done with the log."""
    if (decision_id is None) == (diff is None):
        raise ConfigError("give a decision's ID, or --diff with a router version")
    with opened_database(data_dir, is_reader=True) as database:
        if diff is None:
            return show_replay(database, config, data_dir, decision_id or "", as_json=as_json)
        candidate, key = router_of(config, data_dir, diff), load_key(data_dir)
        return show_diff(compared(database, candidate, key, since), as_json=as_json)


def show_replay(database: Database, config: Path, data_dir: Path, decision_id: str, *, as_json: bool) -> int:
    """Prints a decision made again. Exit status 0 when it is the same to the last bit, 1 when not."""
    from coe.decision_log.replayed import NotReplayableError, routed
    from coe.gateway.replay import replay as again

    record = database.get_decision(decision_id)
    if record is None:
        raise ConfigError(
            f"there is no decision '{decision_id[:64]}' in the database; if it is still on its way, `coe log drain`"
        )
    try:
        logged, _ = routed(record)
        found = again(router_of(config, data_dir, logged.router_version), record, load_key(data_dir))
    except NotReplayableError as error:
        raise NotReplayableError(f"{decision_id} cannot be made again: {error}") from error
    if as_json:
        echo(replay_json(record, found))
    else:
        for line in replay_lines(record, found):
            echo(line)
    return 1 if found.differences else 0


def replay_json(record: DecisionRecord, found: Replay) -> str:
    import json

    return json.dumps(
        {
            "decision_id": record.decision_id,
            "router_version": found.decision.router_version,
            "is_same": not found.differences,
            "features_from": found.features.source,
            "has_logged_hash": found.features.is_known,
            "has_new_settings": found.has_new_settings,
            "differences": {name: {"logged": was, "again": now} for name, (was, now) in found.differences.items()},
        },
        indent=1,
        ensure_ascii=False,
    )


def replay_lines(record: DecisionRecord, found: Replay) -> Iterator[str]:
    decision, features = found.decision, found.features
    draw = "nothing was drawn" if decision.seed is None else f"drawn with seed {decision.seed}"
    where = f"router {decision.router_version}, policy {decision.policy}, features from the {features.source}, {draw}"
    if not found.differences:
        yield f"{record.decision_id}: the same to the last bit: {decision.category} -> {decision.expert} ({where})"
    else:
        yield f"{record.decision_id}: comes out otherwise in {len(found.differences)} fields ({where})"
        for name, (was, now) in found.differences.items():
            yield f"  {name}: logged {shorten(was)}, now {shorten(now)}"
    if not features.is_known:
        yield (
            "  the embedding does not have the logged hash: it was changed, or the hash is by another data folder's "
            "log.key"
        )
    if found.has_new_settings:
        yield (
            f"  experts.yaml decides otherwise now than it did then for policy {decision.policy}: experts, "
            "capabilities, budgets, prices, pins, exploration or alpha changed"
        )


def shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 3]}..."


def router_of(config: Path, data_dir: Path, version: str) -> Router:
    from coe.fleet.router_registry import Registry
    from coe.router.build import load_router
    from coe.router.config import load_config
    from coe.router.live_pointer import ROUTERS_FOLDER

    return load_router(load_config(config), Registry(data_dir / ROUTERS_FOLDER).folder(version))


def compared(database: Database, candidate: Router, key: bytes, since: float) -> CandidateReport:
    """The report of a candidate over the newest decisions since a time in Unix seconds."""
    from coe.cli.progress import console_progress
    from coe.gateway.replay import compare

    def told() -> Iterator[DecisionRecord]:
        for number, record in enumerate(database.newest_decisions(since=since, limit=NEWEST), 1):
            progress(f"deciding again: {number} of {NEWEST}")
            yield record

    with console_progress() as progress:
        return compare(candidate, told(), key, EXAMPLES)


def show_diff(report: CandidateReport, *, as_json: bool) -> int:
    from coe.cli.terminal import Terminal

    if as_json:
        echo(report.model_dump_json(indent=1))
        return 0
    console = Terminal()
    for line in summary_lines(report):
        console.print(line, soft_wrap=True)
    if report.compared:
        console.print(category_table(report))
    if report.examples:
        console.print(example_table(report))
    return 0


def summary_lines(report: CandidateReport) -> Iterator[str]:
    yield f"router {report.candidate} against {report.compared:,} of {report.decisions:,} logged decisions"
    for reason, count in report.skipped.items():
        yield f"  left out {count:,}: {reason}"
    if report.from_text:
        yield f"  {report.from_text:,} of them from the logged text, which need not be what was decided from"
    changed, gain = report.changed, report.predicted_gain
    if changed is not None and changed.interval is not None:
        low, high = changed.interval.low, changed.interval.high
        yield f"another expert: {changed.value:.1%} (95% interval {low:.1%} to {high:.1%})"
    if gain is not None and gain.interval is not None:
        yield (
            f"predicted quality, by the candidate's own estimate: {gain.value:+.3f} "
            f"({gain.interval.low:+.3f} to {gain.interval.high:+.3f})"
        )


def category_table(report: CandidateReport) -> Grid:
    from coe.cli.terminal import Grid

    table = Grid("category", "decisions", "another expert", "share")
    for each in report.categories:
        table.add_row(each.category, f"{each.decisions:,}", f"{each.changed:,}", f"{each.changed / each.decisions:.1%}")
    for move in report.moves[:10]:
        table.caption = f"{table.caption or ''}\n{move.expert} -> {move.candidate_expert}: {move.decisions:,}".strip()
    return table


def example_table(report: CandidateReport) -> Grid:
    from rich.text import Text

    from coe.cli.terminal import Grid

    has_text = any(each.text is not None for each in report.examples)
    table = Grid("decision", "category", "expert", "why", *(["text"] if has_text else []))
    for each in report.examples:
        category = arrow(each.category, each.candidate_category)
        row = [each.decision_id, category, arrow(each.expert, each.candidate_expert), each.candidate_reason]
        table.add_row(*row, *([Text(each.text or "")] if has_text else []))
    return table


def arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"
