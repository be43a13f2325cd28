from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
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


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def test_what_is_old_is_in_files_and_no_longer_in_sql(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    monkeypatch.setattr(archive_module, "BATCH_ROWS", 3)
    times = [FIRST, FIRST + 1, FIRST + 2, FIRST + HOUR_S, FIRST + HOUR_S + 9, FIRST + 2 * HOUR_S]
    embedding = np.ones(4, "<f2").tobytes()
    records = [make_record(n).model_copy(update={"at": at, "embedding": embedding}) for n, at in enumerate(times)]
    store.write_decisions(records)
    thumb = Feedback(decision_id=records[1].decision_id, kind=FeedbackKind.THUMB, value=1.0, at=FIRST + 5)
    store.put_feedback(thumb, FeedbackConfig(), records[1])

    assert archive(store, FIRST + HOUR_S + 5, folder, at=FIRST + 9 * HOUR_S) == Removed(4, 1)

    first, second = sorted(folder.glob("*.jsonl.gz"))
    assert [file.name for file in (first, second)] == [
        "decisions-2027-01-15T080000-r1-0.jsonl.gz",
        "decisions-2027-01-15T090000-r1-3.jsonl.gz",
    ]
    lines = lines_of(first)
    assert [line["decision_id"] for line in lines] == [each.decision_id for each in records[:3]]
    assert DecisionRecord.model_validate_json(lines[1]["record"]).at == FIRST + 1
    assert base64.b64decode(lines[1]["embedding"]) == embedding
    assert lines[1]["feedback"] == [{"kind": "thumb", "value": 1.0, "at": FIRST + 5, "key_id": ""}]
    assert [store.get_decision(each.decision_id) is None for each in records] == [True] * 4 + [False] * 2
    (account,) = Ledger(store).accounts()
    assert account.removed == [range(4)]


def test_after_a_crash_behind_a_file_the_next_run_replaces_it(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [make_record(n).model_copy(update={"at": FIRST + n}) for n in range(3)]
    store.write_decisions(records)
    with monkeypatch.context() as patched:
        patched.setattr(archive_module, "remove_in", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            archive(store, FIRST + HOUR_S, tmp_path, at=FIRST + 9 * HOUR_S)
    (file,) = tmp_path.glob("*.jsonl.gz")
    assert (len(lines_of(file)), store.count()) == (3, 3)
    thumb = Feedback(decision_id=records[1].decision_id, kind=FeedbackKind.THUMB, value=1.0, at=FIRST + 5)
    store.put_feedback(thumb, FeedbackConfig(), records[1])
    assert archive(store, FIRST + HOUR_S, tmp_path, at=FIRST + 9 * HOUR_S) == Removed(3, 1)
    assert list(tmp_path.glob("*.jsonl.gz")) == [file]
    assert [len(line["feedback"]) for line in lines_of(file)] == [0, 1, 0]


def test_a_subject_is_erased_from_the_files_that_mention_it(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "BATCH_ROWS", 1)
    folder, me = tmp_path / "archive", frozenset({"key-1"})
    records = [make_record(n).model_copy(update={"at": FIRST + n * HOUR_S, "key_id": "key-2"}) for n in range(3)]
    records[1] = records[1].model_copy(update={"key_id": "key-1"})
    store.write_decisions(records)
    for record, key in ((records[1], "key-1"), (records[2], "key-1"), (records[2], "key-2")):
        store.put_feedback(
            Feedback(decision_id=record.decision_id, kind=FeedbackKind.THUMB, value=1.0, at=record.at + 1, key_id=key)
        )
    archive(store, FIRST + 3 * HOUR_S, folder, at=FIRST + 9 * HOUR_S)
    files = sorted(folder.glob("*.jsonl.gz"))
    (folder / ".decisions-of-a-crash").touch()
    before = [file.stat().st_ino for file in files]

    assert erase_archived(folder, me, FIRST + 9 * HOUR_S, is_dry_run=True) == Removed(1, 2)
    assert erase_archived(folder, me, FIRST) == Removed()  # it was made later
    assert len(lines_of(files[1])) == 1
    assert erase_archived(folder, me, FIRST + 9 * HOUR_S) == Removed(1, 2)
    assert erase_archived(folder, me, FIRST + 9 * HOUR_S) == Removed()
    assert files[0].stat().st_ino == before[0]
    assert lines_of(files[1]) == []
    (left,) = lines_of(files[2])
    assert left["decision_id"] == records[2].decision_id
    assert [each["key_id"] for each in left["feedback"]] == ["key-2"]
    assert sorted(folder.iterdir()) == [folder / ".lock", *files]
    files[2].write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"r1-2\.jsonl\.gz: is not a file of `coe log erase --archive`, or is damaged"):
        erase_archived(folder, me, FIRST + 9 * HOUR_S)
