"""Old decisions from SQL to Parquet, a file for each hour, and then out of SQL; and a subject's out of these files."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from base.errors import DataError
from base.progress import Progress, silent
from base.whole_files import locked, sync_path
from decision_log.database import Database
from decision_log.read import id_batches
from decision_log.sql_removal import BATCH_ROWS, Found, Removal, Removed, found_of
from decision_log.tables import DECISIONS, DOCUMENT_FEEDBACK, FEEDBACK, JUDGEMENTS, SIGNALS

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sqlalchemy.engine import Connection

HOUR_S = 3600
SAID = (FEEDBACK, DOCUMENT_FEEDBACK, SIGNALS, JUDGEMENTS)
"""Tables about decisions; their rows are in a column of their name, as JSON."""
RATED = (FEEDBACK, DOCUMENT_FEEDBACK)


def archive(database: Database, before: float, folder: Path, at: float, progress: Progress = silent) -> Removed:
    """Moves decisions made before a time, and what was said of them, into files of `folder`.

    Rows go from SQL once the file that has them is on disk; a decision of which more was said meanwhile stays, for a
    later file. After a crash in between, a later file has some of them again, too; a decision's id tells. Only an
    erasure writes a file again, and waits until none is made.

    Args:
        before, at: Unix seconds; the second is noted as the time of the removal.

    Raises:
        StoreError: SQL cannot be asked; what was moved until then stays moved.
        OSError: a file cannot be written.
    """
    moved, removal = Removed(), Removal(database)
    with owned(folder):
        while (first := oldest(database)) is not None and first < before:
            hour = first // HOUR_S * HOUR_S
            file = new_file(folder, hour)
            found, told = write_hour(database, min(hour + HOUR_S, before), file)
            for start in range(0, len(found), BATCH_ROWS):
                part = found[start : start + BATCH_ROWS]
                moved += removal.remove(part, reason="archived", at=at, is_wanted=partial(is_told, told))
            progress(f"{file.name}: {len(found):,} decisions")
    database.checkpoint()
    return moved


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """The folder for one command at a time, without what an earlier one left unfinished."""
    with locked(folder / ".lock"):
        for part in folder.glob(part_of(folder / "*.parquet").name):
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
    import pyarrow as pa
    import pyarrow.parquet as pq

    gone: list[Removed] = []

    def kept_of(old: pq.ParquetFile) -> Iterator[list[dict[str, Any]]]:
        for rows in old.iter_batches(BATCH_ROWS):
            kept, without = rows_without(rows.to_pylist(), subjects, at)
            gone.append(without)
            yield kept

    with owned(folder):
        for file in sorted(folder.glob("decisions-*.parquet")):
            try:
                with pq.ParquetFile(file) as old:
                    if not mentions(old, subjects):
                        continue
                    if is_dry_run:
                        deque(kept_of(old), maxlen=0)  # counted, and kept nowhere
                    else:
                        write_rows(file, old.schema_arrow, kept_of(old))
            except (pa.ArrowException, LookupError) as error:
                raise DataError(f"{file}: is not a file of `coe log archive`, or is damaged") from error
    return sum(gone, Removed())


def mentions(file: pq.ParquetFile, subjects: Collection[str]) -> bool:
    """Looks for the names of subjects, which mostly are in none of the rows."""
    import pyarrow.compute as pc

    columns = ["record", *(table.name for table in RATED)]
    return any(
        pc.any(pc.match_substring(column, each)).as_py()
        for rows in file.iter_batches(BATCH_ROWS, columns=columns)
        for column in rows.columns
        for each in subjects
    )


def rows_without(
    rows: Sequence[dict[str, Any]], subjects: Collection[str], at: float
) -> tuple[list[dict[str, Any]], Removed]:
    """The rows but for the decisions of subjects up to a time and what they said until then; what is left out."""
    kept, feedback = [], 0
    for row in rows:
        is_gone = found_of(row["record"], subjects, at) is not None
        for table in RATED:
            said = json.loads(row[table.name])
            left = [] if is_gone else [each for each in said if each["key_id"] not in subjects or each["at"] > at]
            row[table.name] = json.dumps(left)
            feedback += len(said) - len(left)
        kept += [] if is_gone else [row]
    return kept, Removed(len(rows) - len(kept), feedback)


def is_told(told: Mapping[str, int], connection: Connection, ids: Sequence[str]) -> set[str]:
    """Decisions of which nothing was said but what the file has, by `told`."""
    return {name for name, said in all_said(connection, ids).items() if digest_of(said) == told[name]}


def oldest(database: Database) -> float | None:
    """The time of the oldest decision; None without one."""
    with database.transaction("look for old decisions") as connection:
        found = connection.execute(select(func.min(DECISIONS.c.at))).scalar_one()
    return None if found is None else float(found)


def new_file(folder: Path, hour: float) -> Path:
    """A name of that hour that no file has."""
    stem = datetime.fromtimestamp(hour, UTC).strftime("decisions-%Y-%m-%dT%H")
    names = (f"{stem}{'' if number == 1 else f'-{number}'}.parquet" for number in range(1, 10**6))
    return next(folder / name for name in names if not (folder / name).exists())


def write_hour(database: Database, until: float, file: Path) -> tuple[list[Found], dict[str, int]]:
    """Writes all decisions made before a time; those that the file has, and by id a digest of what it says of each."""
    found, told = list[Found](), dict[str, int]()

    def noted() -> Iterator[list[dict[str, Any]]]:
        for rows in pages(database, until):
            found.extend(Found(row["decision_id"], row["replica"], row["seq"]) for row in rows)
            told.update({row["decision_id"]: digest_of(row) for row in rows})
            yield rows

    write_rows(file, schema_of(), noted())
    return found, told


def write_rows(file: Path, schema: pa.Schema, pages: Iterable[list[dict[str, Any]]]) -> None:
    """Writes a file that is there as a whole or not at all, also after a power cut."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = part_of(file)
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for rows in pages:
            writer.write_table(pa.Table.from_pylist(rows, schema))
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(file)
    sync_path(file.parent)


def part_of(file: Path) -> Path:
    """The file's name while it is written, by which readers of the folder pass it over."""
    return file.with_name(f".{file.name}")


def digest_of(said: Mapping[str, Any]) -> int:
    """Number that differs, as good as surely, where something else was said of a decision; for this process only."""
    return hash(tuple(said[table.name] for table in SAID))


def schema_of() -> pa.Schema:
    """Columns of the table of decisions, and one for each table about them."""
    import pyarrow as pa

    kinds = {str: pa.string(), float: pa.float64(), int: pa.int64(), bytes: pa.binary()}
    columns = [(column.name, kinds[column.type.python_type]) for column in DECISIONS.columns]
    return pa.schema(columns + [(table.name, pa.string()) for table in SAID])


def pages(database: Database, until: float) -> Iterator[list[dict[str, Any]]]:
    """Rows of decisions made before a time, by id, with what was said of each."""
    last = ""
    while True:
        old = select(DECISIONS).where(DECISIONS.c.at < until, DECISIONS.c.decision_id > last)
        with database.transaction("read old decisions") as connection:
            read = connection.execute(old.order_by(DECISIONS.c.decision_id).limit(BATCH_ROWS)).mappings()
            rows = [dict(row) for row in read]
            said = all_said(connection, [row["decision_id"] for row in rows])
        if not rows:
            return
        yield [row | said[row["decision_id"]] for row in rows]
        last = rows[-1]["decision_id"]


def all_said(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Rows about each decision, as JSON by the name of their table."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {table.name: [] for table in SAID} for name in ids}
    for table in SAID:
        for some in id_batches(ids):
            rows = select(table).where(table.c.decision_id.in_(some)).order_by(*table.primary_key)
            for row in connection.execute(rows).mappings():
                values = {name: value for name, value in row.items() if name not in ("id", "decision_id")}
                found[row["decision_id"]][table.name].append(values)
    return {name: {table: json.dumps(rows) for table, rows in said.items()} for name, said in found.items()}
