"""Old decisions from SQL to files of compressed JSON lines, and then out of SQL; and a subject's out of these files."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from base.errors import DataError
from base.json_text import from_json, to_json
from base.progress import Progress, silent
from base.whole_files import locked, write_whole
from decision_log.database import Database
from decision_log.read import id_batches
from decision_log.sql_removal import BATCH_ROWS, Found, Removed, found_of, remove_in
from decision_log.tables import DECISIONS, DOCUMENT_FEEDBACK, FEEDBACK, JUDGEMENTS, SIGNALS
from decision_log.tombstones import lock

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

RATED = (FEEDBACK, DOCUMENT_FEEDBACK)
SAID = (*RATED, SIGNALS, JUDGEMENTS)
"""Tables about decisions; a line has their rows under their name."""


def archive(database: Database, before: float, folder: Path, at: float, progress: Progress = silent) -> Removed:
    """Moves decisions made before a time, and what was said of them, into files of `folder`, oldest first.

    Rows go from SQL once the file that has them is on disk. After a crash in between, the next run replaces that file.

    Args:
        before, at: Unix seconds; the second is noted as the time of the removal.

    Raises:
        StoreError: SQL cannot be asked; what was moved until then stays moved.
        OSError: a file cannot be written.
    """
    moved = Removed()
    with owned(folder):
        while (part := move_oldest(database, before, folder, at)).decisions:
            moved += part
            progress(f"{moved.decisions:,} decisions")
    database.checkpoint()
    return moved


def move_oldest(database: Database, before: float, folder: Path, at: float) -> Removed:
    """Moves the oldest decisions into one file."""
    oldest = select(DECISIONS).where(DECISIONS.c.at < before).order_by(DECISIONS.c.at, DECISIONS.c.decision_id)
    with database.transaction("archive decisions") as connection:
        lock(connection, for_erasure=True)  # and nothing more is said of them meanwhile
        rows = [dict(row) for row in connection.execute(oldest.limit(BATCH_ROWS)).mappings()]
        if not rows:
            return Removed()
        said = all_said(connection, [row["decision_id"] for row in rows])
        began = datetime.fromtimestamp(rows[0]["at"], UTC).strftime("%Y-%m-%dT%H%M%S")
        file = folder / f"decisions-{began}-{rows[0]['decision_id']}.jsonl.gz"
        write_lines(file, [line_of(row) | said[row["decision_id"]] for row in rows])
        found = [Found(row["decision_id"], row["replica"], row["seq"]) for row in rows]
        return remove_in(connection, database.insert, found, reason="archived", at=at)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """The folder for one command at a time, without what an earlier one left unfinished."""
    with locked(folder / ".lock"):
        for part in folder.glob(".decisions-*"):
            part.unlink()
        yield


def erase_archived(folder: Path, subjects: Collection[str], at: float, *, is_dry_run: bool = False) -> Removed:
    """Erases from an archive what subjects decided and said up to a time, as `Removal.erase` does from SQL.

    Args:
        subjects: stored key ids, session ids and text hashes.
        at: Unix seconds.

    Raises:
        DataError: a file is damaged; those before it are done.
        OSError: a file cannot be read or written; those before it are done.
    """
    gone = Removed()
    with owned(folder):
        for file in sorted(folder.glob("decisions-*.jsonl.gz")):
            try:
                lines = [from_json(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
                kept, without = lines_without(lines, subjects, at)
            except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, LookupError, TypeError) as error:
                raise DataError(f"{file}: is not a file of `coe log erase --archive`, or is damaged") from error
            gone += without
            if without != Removed() and not is_dry_run:
                write_lines(file, kept)
    return gone


def lines_without(
    lines: Sequence[dict[str, Any]], subjects: Collection[str], at: float
) -> tuple[list[dict[str, Any]], Removed]:
    """The lines but for the decisions of subjects up to a time and what they said until then; what is left out."""
    kept, feedback = [], 0
    for line in lines:
        is_gone = found_of(line["record"], subjects, at) is not None
        for table in RATED:
            said = line[table.name]
            left = [] if is_gone else [each for each in said if each["key_id"] not in subjects or each["at"] > at]
            line[table.name] = left
            feedback += len(said) - len(left)
        kept += [] if is_gone else [line]
    return kept, Removed(len(lines) - len(kept), feedback)


def write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes a file that is there as a whole or not at all, also after a power cut."""
    text = b"".join(to_json(line) + b"\n" for line in lines)
    write_whole(file, gzip.compress(text, compresslevel=1), is_synced=True)


def line_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A decision's row as JSON has it: its embedding in base64."""
    embedding = row["embedding"]
    return {**row, "embedding": None if embedding is None else base64.b64encode(embedding).decode()}


def all_said(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Rows about each decision by the name of their table."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {table.name: [] for table in SAID} for name in ids}
    for table in SAID:
        for some in id_batches(ids):
            rows = select(table).where(table.c.decision_id.in_(some)).order_by(*table.primary_key)
            for row in connection.execute(rows).mappings():
                values = {name: value for name, value in row.items() if name not in ("id", "decision_id")}
                found[row["decision_id"]][table.name].append(values)
    return found
