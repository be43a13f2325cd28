from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from base.errors import DataError
from decision_log import archive as archive_module
from decision_log.archive import archive, erase_archived
from decision_log.database import Database
from decision_log.decision_record import DecisionRecord
from decision_log.feedback_types import Feedback, FeedbackKind
from decision_log.ledger import Ledger
from decision_log.sql_removal import Removed
from router.feedback_config import FeedbackConfig
from tests.decision_log.running_log import make_record

HOUR_S = 3600.0
FIRST = 500_000 * HOUR_S  # an hour begins


def test_what_is_old_is_in_files_by_the_hour_and_no_longer_in_sql(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    monkeypatch.setattr(archive_module, "BATCH_ROWS", 2)
    times = [FIRST, FIRST + 1, FIRST + 2, FIRST + HOUR_S, FIRST + HOUR_S + 9, FIRST + 2 * HOUR_S]
    embedding = np.ones(4, "<f2").tobytes()
    records = [make_record(n).model_copy(update={"at": at, "embedding": embedding}) for n, at in enumerate(times)]
    store.write_decisions(records)
    thumb = Feedback(decision_id=records[1].decision_id, kind=FeedbackKind.THUMB, value=1.0, at=FIRST + 5)
    store.put_feedback(thumb, FeedbackConfig(), records[1])

    assert archive(store, FIRST + HOUR_S + 5, folder, at=FIRST + 9 * HOUR_S) == Removed(4, 1)

    first, second = sorted(folder.glob("*.parquet"))
    assert [file.name for file in (first, second)] == [
        "decisions-2027-01-15T08.parquet",
        "decisions-2027-01-15T09.parquet",
    ]
    rows = pq.read_table(first).to_pylist()
    assert sorted(row["decision_id"] for row in rows) == sorted(each.decision_id for each in records[:3])
    (rated,) = [row for row in rows if row["decision_id"] == records[1].decision_id]
    assert DecisionRecord.model_validate_json(rated["record"]).at == FIRST + 1
    assert rated["embedding"] == embedding
    assert json.loads(rated["feedback"]) == [{"kind": "thumb", "value": 1.0, "at": FIRST + 5, "key_id": ""}]
    assert [store.get_decision(each.decision_id) is None for each in records] == [True] * 4 + [False] * 2
    (account,) = Ledger(store).accounts()
    assert account.removed == [range(4)]

    archive(store, FIRST + 2 * HOUR_S, folder, at=FIRST + 9 * HOUR_S)
    assert (folder / "decisions-2027-01-15T09-2.parquet").is_file()


def test_what_is_said_while_its_hour_is_written_is_in_a_later_file(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [make_record(n).model_copy(update={"at": FIRST + n}) for n in range(3)]
    store.write_decisions(records)
    thumb = Feedback(decision_id=records[1].decision_id, kind=FeedbackKind.THUMB, value=1.0, at=FIRST + 5)
    write_hour = archive_module.write_hour

    def slow(database: Database, until: float, file: Path) -> object:
        written = write_hour(database, until, file)
        database.put_feedback(thumb, FeedbackConfig(), records[1])
        return written

    monkeypatch.setattr(archive_module, "write_hour", slow)
    assert archive(store, FIRST + HOUR_S, tmp_path / "archive", at=FIRST + 9 * HOUR_S) == Removed(3, 1)
    files = sorted((tmp_path / "archive").glob("*-2.parquet"))
    (late,) = pq.read_table(files[0]).to_pylist()
    assert late["decision_id"] == records[1].decision_id
    assert json.loads(late["feedback"])[0]["value"] == 1.0
    assert Ledger(store).accounts()[0].removed == [range(3)]


def test_a_subject_is_erased_from_the_files_that_mention_it(store: Database, tmp_path: Path) -> None:
    folder, me = tmp_path / "archive", frozenset({"key-1"})
    records = [make_record(n).model_copy(update={"at": FIRST + n * HOUR_S, "key_id": "key-2"}) for n in range(3)]
    records[1] = records[1].model_copy(update={"key_id": "key-1"})
    store.write_decisions(records)
    for record, key in ((records[1], "key-1"), (records[2], "key-1"), (records[2], "key-2")):
        store.put_feedback(
            Feedback(decision_id=record.decision_id, kind=FeedbackKind.THUMB, value=1.0, at=record.at + 1, key_id=key)
        )
    archive(store, FIRST + 3 * HOUR_S, folder, at=FIRST + 9 * HOUR_S)
    files = sorted(folder.glob("*.parquet"))
    (folder / ".decisions-of-a-crash.parquet").touch()
    before = [file.stat().st_ino for file in files]

    assert erase_archived(folder, me, FIRST + 9 * HOUR_S, is_dry_run=True) == Removed(1, 2)
    assert erase_archived(folder, me, FIRST) == Removed()  # it was made later
    assert pq.read_table(files[1]).num_rows == 1
    assert erase_archived(folder, me, FIRST + 9 * HOUR_S) == Removed(1, 2)
    assert erase_archived(folder, me, FIRST + 9 * HOUR_S) == Removed()
    assert files[0].stat().st_ino == before[0]
    assert pq.read_table(files[1]).num_rows == 0
    (left,) = pq.read_table(folder).to_pylist()[1:]
    assert left["decision_id"] == records[2].decision_id
    assert [each["key_id"] for each in json.loads(left["feedback"])] == ["key-2"]
    assert sorted(folder.iterdir()) == [folder / ".lock", *files]
    files[2].write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"T10\.parquet: is not a file of `coe log archive`, or is damaged"):
        erase_archived(folder, me, FIRST + 9 * HOUR_S)
