"""`coe categories propose`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.options import ConfigOption, DataOption, JsonOption, SinceOption
from base.progress import console_progress
from base.visible_text import echo
from decision_log.default_database import database_url_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from training.new_categories import NewCategory, Proposals

PROPOSALS_FILE = "category_proposals.json"
SHOWN_CHARS = 100


def categories_propose(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    since: SinceOption = 0.0,
    min_size: Annotated[int, typer.Option(min=4, help="distinct queries that make a category")] = 20,
    as_json: JsonOption = False,
    accept: Annotated[
        str | None, typer.Option("--accept", metavar="NAME", help="write this proposal of the last time as files")
    ] = None,
    rename: Annotated[str | None, typer.Option("--as", help="with --accept: a better name")] = None,
    out: Annotated[Path, typer.Option(help="with --accept: folder of the files; commit it after reading it")] = Path(
        "proposals"
    ),
) -> None:
    """Find topics that the router does not know, and categories that are not asked for; changes nothing itself."""
    from training.category_files import keep_proposals
    from training.new_categories import ProposeRequest, propose

    url = database_url_of(data_dir)
    if accept is not None:
        write_proposal(accept, out, rename, data_dir / PROPOSALS_FILE, url)
        return
    request = ProposeRequest(
        config=config,
        routers=data_dir / "routers",
        database_url=url,
        since=since,
        min_size=min_size,
    )
    with console_progress() as progress:
        found = propose(request, progress)
    keep_proposals(data_dir / PROPOSALS_FILE, found)
    if as_json:
        echo(found.model_dump_json(indent=1))
    else:
        print_proposals(found, url)


def print_proposals(found: Proposals, database_url: str) -> None:
    from decision_log.sql_engine import open_log
    from training.new_categories import DEAD_SHARE, EXAMPLES

    echo(
        f"{found.n_decisions:,} routed decisions: stage 1 was unsure of {found.n_uncertain:,}, "
        f"of which {found.n_far:,} lie far from what it was trained on"
    )
    for reason, count in found.left_out.items():
        echo(f"  left out: {count:,} ({reason})")
    with open_log(database_url) as connection:
        for new in found.new:
            echo(new_line(new))
            texts = texts_of(connection, new.decision_ids[:EXAMPLES])
            for text in texts:
                echo(f"    {shortened(text)}")
            if not texts:
                echo("    no example: the log keeps no text (log.privacy), so the name says nothing either")
    for dead in found.dead:
        echo(f"dead: {dead.name}: {dead.n} decisions, below {dead.high:.2%} of the traffic")
    if not found.new:
        echo("no new category: nothing among them is both stable and large enough")
    if not found.dead and found.n_decisions < found.dead_needs:
        echo(f"categories without traffic (below {DEAD_SHARE:.1%}) show from about {found.dead_needs:,} decisions on")
    if found.new or found.dead:
        echo("`coe categories propose --accept NAME` writes the change as a file to review; nothing has been changed")


def new_line(new: NewCategory) -> str:
    """One proposal with what it could win."""
    parts = [f"new: {new.name}: {new.n:,} decisions ({new.share:.1%}), {new.n_distinct:,} distinct"]
    parts.append(f"stability {new.stability:.2f}")
    if new.gain is not None:
        gain = new.gain
        parts.append(f"{gain.expert} would add {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] to their reward")
    elif new.at_most is not None:
        parts.append(
            f"mean reward {new.mean_reward:.2f}, so at most {new.at_most:.4f} can be won overall; {new.unknown}"
        )
    else:
        parts.append("gain unknown: none is rated")
    return "; ".join(parts)


def texts_of(connection: Connection, decision_ids: Sequence[str]) -> list[str]:
    """Texts of decisions, where the log still keeps them, in the order asked for."""
    from decision_log.read import read_rows

    texts = (json.loads(row.record).get("text") for row in read_rows(connection, decision_ids) if row is not None)
    return [text for text in texts if text]


def shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 1] + "\u2026"


def write_proposal(name: str, out: Path, rename: str | None, proposals: Path, database_url: str) -> None:
    """Writes a proposed change of categories as files to review and commit."""
    from decision_log.sql_engine import open_log
    from training.category_files import read_proposals, write_new, write_removal

    found = read_proposals(proposals)
    today = datetime.now(UTC).date().isoformat()
    dead = {proposal.name: proposal for proposal in found.dead}
    if name in dead:
        written = write_removal(out, dead[name], found, today)
    else:
        new = found.named(name)
        with open_log(database_url) as connection:
            texts = texts_of(connection, new.decision_ids)
        written = write_new(out, new, rename or name, texts, found, today)
    for path in written:
        echo(f"wrote {path}")
    echo("read it, change it, commit it; experts.yaml and the router are as they were")
