"""`coe categories propose`, and the files of its proposals: what a person reads, changes and commits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from coe.base.errors import DataError
from coe.base.text_identity import normalised_text
from coe.base.visible_text import echo
from coe.cli.options import ConfigOption, DataOption, JsonOption, SinceOption
from coe.cli.progress import console_progress
from coe.decision_log.default_database import database_url_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from coe.training.new_categories import NewCategory, Proposals

SHOWN_CHARS = 100
MOST_QUERIES = 200
"""As many as a category of the seed set has, about."""

HEADER = """\
# A proposal of `coe categories propose`, {today}, from {n:,} decisions of router {version}.
# Nothing reads this file. {what}
"""
WITH_TEXTS = (
    "Describe the category, take wrong queries out of {name}.jsonl, move that file to the folder of\n"
    "# `coe train --queries`, add the entry to experts.yaml, grade experts on it (`coe eval collect`), train again."
)
WITHOUT_TEXTS = "The log keeps no text, so write queries for it yourself, then add the entry to experts.yaml and train."
REMOVAL = "Take the category out of experts.yaml and its file out of the seed folder, then train again."


def categories_propose(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    since: SinceOption = 0.0,
    min_size: Annotated[int, typer.Option(min=4, help="distinct queries that make a category")] = 20,
    as_json: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option(help="folder that gets each proposal as files, to review and commit")
    ] = None,
) -> None:
    """Find topics that the router does not know, and categories that are not asked for; changes nothing itself."""
    from coe.training.new_categories import ProposeRequest, propose

    url = database_url_of(data_dir)
    request = ProposeRequest(config, data_dir / "routers", url, min_size, since)
    with console_progress() as progress:
        found = propose(request, progress)
    if as_json:
        echo(found.model_dump_json(indent=1))
    else:
        print_proposals(found, url)
    if out is not None:
        for path in write_proposals(out, found, url):
            echo(f"wrote {path}", to_stderr=as_json)


def print_proposals(found: Proposals, database_url: str) -> None:
    from coe.decision_log.sql_engine import open_log
    from coe.training.new_categories import DEAD_SHARE, EXAMPLES

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
    from coe.decision_log.read import read_rows

    texts = (json.loads(row.record).get("text") for row in read_rows(connection, decision_ids) if row is not None)
    return [text for text in texts if text]


def shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 1] + "\u2026"


def write_proposals(folder: Path, found: Proposals, database_url: str) -> tuple[Path, ...]:
    """Each new category as its entry for experts.yaml and, where texts were kept, its queries for a seed folder; each
    that is not asked for as a note.

    Raises:
        DataError: there are such files already, or they cannot be written.
    """
    from coe.decision_log.sql_engine import open_log

    files: dict[Path, str] = {}
    with open_log(database_url) as connection:
        for new in found.new:
            seeds = distinct(texts_of(connection, new.decision_ids))[:MOST_QUERIES]
            values = {
                "categories": {new.name: "one line that says what is asked here"},
                "evidence": new.model_dump(exclude={"decision_ids", "name"}, exclude_none=True),
                "examples": seeds[:5],
            }
            to_do = WITH_TEXTS.format(name=new.name) if seeds else WITHOUT_TEXTS
            files[folder / f"{new.name}.yaml"] = described(found, to_do, values)
            if seeds:
                lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in seeds]
                files[folder / f"{new.name}.jsonl"] = "".join(lines)
    for dead in found.dead:
        values = {"remove": dead.name, "evidence": {"decisions": dead.n, "share_below": round(dead.high, 6)}}
        files[folder / f"remove-{dead.name}.yaml"] = described(found, REMOVAL, values)
    return write(files)


def described(found: Proposals, what: str, values: Mapping[str, object]) -> str:
    """Text of a YAML file that says where it comes from and what to do with it."""
    today = datetime.now(UTC).date().isoformat()
    head = HEADER.format(today=today, n=found.n_decisions, version=found.router_version, what=what)
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def distinct(texts: Sequence[str]) -> list[str]:
    """Texts without repetitions (up to case, spacing and punctuation), in order."""
    kept: dict[str, str] = {}
    for text in texts:
        kept.setdefault(normalised_text(text), text.strip())
    return list(kept.values())


def write(files: dict[Path, str]) -> tuple[Path, ...]:
    """All files or none where one is there already."""
    for path in files:
        if path.exists():
            raise DataError(f"{path}: is there already; move it away, or choose another folder by --out")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    return tuple(files)
