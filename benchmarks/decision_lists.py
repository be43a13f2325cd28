"""Measures lists of decisions under filters that few or none match, beside the list without one.

    nice python -m benchmarks.decision_lists [--rows 1000000] [--database-url URL] [--rounds 5]

One decision in 100,000 is of the rare expert, policy, state and opinion; those in brackets have none. Prints
the time of the first page of 50 and of the whole list (s, median and range), and how many pages that has.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.record_cost import routed, row_of
from coe.base.json_text import from_json, to_json
from coe.decision_log.database import Database
from coe.decision_log.decision_record import TerminalState
from coe.decision_log.default_database import default_database_url
from coe.decision_log.feedback_types import Feedback, FeedbackKind
from coe.decision_log.listing import DecisionFilter, Opinion
from coe.decision_log.payloads import Logged, from_payload, json_line, to_payload
from coe.gateway.chat.log import record_of

TEAM, EVERY, BATCH, PAGE = "acme", 100_000, 2000, 50
MONTH_S, NOW = 30 * 86_400.0, 1_764_000_000.0
FILTERS: dict[str, dict[str, Any]] = {
    "without": {},
    "expert": {"expert": "rare"},
    "[expert]": {"expert": "nobody"},
    "state": {"state": "timed_out"},
    "policy": {"policy": "rare"},
    "[policy]": {"policy": "nothing"},
    "feedback": {"feedback": Opinion.BAD},
    "router_version": {"router_version": "none"},
}

console = Console(highlight=False)


def decisions(rows: int) -> Iterator[Logged]:
    """Routed decisions of one team, evenly over a month."""
    common = from_json(json_line(to_payload(record_of(row_of(routed(), 0), {}, "replica", 0))))
    rare = {"state": TerminalState.TIMED_OUT, "served_expert": "rare"}
    for seq in range(rows):
        record = common | {"decision_id": f"dec-{seq:032x}", "seq": seq, "key_id": f"{TEAM}/{seq % 13}"}
        record["at"] = NOW - MONTH_S * (rows - seq) / rows
        if seq % EVERY == EVERY // 2:
            record |= rare | {"decision": record["decision"] | {"policy": "rare"}}
        yield from_payload(to_json(record))


def fill(database: Database, rows: int) -> None:
    batch: list[Logged] = []
    for each in decisions(rows):
        batch.append(each)
        if len(batch) == BATCH:
            database.write_decisions(batch)
            batch.clear()
    database.write_decisions(batch)
    for seq in range(EVERY // 2, rows, EVERY):
        said = Feedback(decision_id=f"dec-{seq:032x}", kind=FeedbackKind.THUMB, value=0.0, at=NOW, key_id=f"{TEAM}/1")
        database.put_feedback(said)


def timed(database: Database, wanted: DecisionFilter, *, is_whole: bool) -> tuple[float, int, int]:
    """Seconds, pages and lines of the first page, or of the whole list."""
    begin, after, pages, lines = time.perf_counter(), None, 0, 0
    while True:
        page = database.list_decisions(TEAM, wanted, limit=PAGE, after=after)
        after, pages, lines = page.next, pages + 1, lines + len(page.lines)
        if not is_whole or after is None:
            return time.perf_counter() - begin, pages, lines


def words(times: list[float]) -> str:
    return f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"


def main(rows: int = 1_000_000, rounds: int = 5, database_url: Annotated[str | None, typer.Option()] = None) -> None:
    with tempfile.TemporaryDirectory() as name:
        database = Database(database_url or default_database_url(Path(name)))
        if not database.count():
            fill(database, rows)
        table = Table("filter", "first page", "whole list", "pages", "lines", title=f"{database.count():,} decisions")
        for label, values in FILTERS.items():
            wanted = DecisionFilter.model_validate(values)
            first = [timed(database, wanted, is_whole=False) for _ in range(rounds)]
            whole = [timed(database, wanted, is_whole=True) for _ in range(rounds if values else 0)]
            pages, lines = (whole or first)[-1][1:]
            row = (words([each[0] for each in first]), words([each[0] for each in whole]) if whole else "-")
            table.add_row(label.replace("[", "\\["), *row, str(pages), str(lines))
        console.print(table)
        database.close()


if __name__ == "__main__":
    typer.run(main)
