"""Batches in SQL: one runner at a time, each line once, and an end that is there as a whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coe.base.errors import RequestError
from coe.decision_log.database import Database
from coe.decision_log.tables.access import BatchRow
from coe.gateway.batches.batch_store import (
    CANCELLED,
    COMPLETED,
    EXPIRED,
    MAX_UNFINISHED,
    VALIDATING,
    BatchStore,
)
from coe.retrieval.stores.files import Files
from coe.retrieval.stores.paging import Page

NOW = 1000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, tmp_path: Path, clock: Clock) -> Iterator[BatchStore]:
    database = Database(database_url)
    yield BatchStore(Files(database, tmp_path / "incoming"), clock)
    database.close()


def batch(name: str, owner: str = "acme") -> BatchRow:
    return BatchRow(
        batch_id=name,
        owner=owner,
        key_id=f"{owner}/1",
        endpoint="/v1/completions",
        input_file_id="file-1",
        completion_window="24h",
        metadata_json="{}",
        created_at=NOW,
        expires_at=NOW + 1,
    )


def lines_of(store: BatchStore, file_id: str | None) -> list[object]:
    out = io.BytesIO()
    store.files.copy(file_id, out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_of_many_that_claim_at_once_each_batch_has_one(store: BatchStore) -> None:
    for number in range(5):
        store.put(batch(f"b{number}"))
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda number: store.claim(f"runner-{number}", 10.0), range(16)))
    found = [claimed.batch_id for claimed in claims if claimed is not None]
    assert sorted(found) == [f"b{number}" for number in range(5)]


def test_a_claim_holds_while_it_is_kept_and_ends_with_its_time(store: BatchStore, clock: Clock) -> None:
    store.put(batch("b"))
    assert store.claim("one", 10.0) is not None
    clock.now += 9
    assert store.keep("one", ["b"], 10.0) == {"b"}
    clock.now += 9
    assert store.claim("two", 10.0) is None
    clock.now += 2
    assert store.claim("two", 10.0) is not None
    assert store.keep("one", ["b"], 10.0) == set()
    store.finish("one", batch("b"), COMPLETED)
    assert store.batch("acme", "b").status == VALIDATING, "who lost the claim ends nothing"
    store.give_back("two")
    assert store.claim("three", 10.0) is not None


def test_the_first_result_of_a_line_stays_and_the_end_has_each_once(store: BatchStore) -> None:
    store.put(batch("b"))
    claimed = store.claim("one", 10.0)
    store.begin("b", 3)
    for number, line, is_error in ((3, b'"c"', False), (1, b'"a"', False), (1, b'"again"', False), (2, b'"x"', True)):
        store.put_result("b", number, line, is_error=is_error)
    running = store.batch("acme", "b")
    assert (running.total, running.completed, running.failed) == (3, 2, 1)
    assert store.done("b") == {1, 2, 3}
    store.finish("one", claimed, COMPLETED)
    store.finish("one", claimed, EXPIRED)
    ended = store.batch("acme", "b")
    assert (ended.status, ended.total, ended.completed, ended.failed) == (COMPLETED, 3, 2, 1)
    assert lines_of(store, ended.output_file_id) == ["a", "c"]
    assert lines_of(store, ended.error_file_id) == ["x"]
    assert store.done("b") == set()
    assert len(store.files.page("acme", Page())) == 2


def test_an_end_that_fails_leaves_all_results(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(batch("b"))
    claimed = store.claim("one", 10.0)
    store.put_result("b", 1, b'"a"', is_error=False)

    def broken(*arguments: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("coe.gateway.batches.batch_store.insert_file", broken)
        with pytest.raises(OSError, match="no room"):
            store.finish("one", claimed, COMPLETED)
    assert store.batch("acme", "b").completed == 1
    store.finish("one", claimed, COMPLETED)
    assert lines_of(store, store.batch("acme", "b").output_file_id) == ["a"]


def test_a_cancelled_batch_ends_as_cancelled(store: BatchStore) -> None:
    store.put(batch("b"))
    claimed = store.claim("one", 10.0)
    with pytest.raises(RequestError) as other:
        store.cancel("rival", "b")
    assert other.value.status == 404
    assert store.cancel("acme", "b").status == "cancelling"
    assert store.keep("one", ["b"], 10.0) == set()
    store.finish("one", claimed, COMPLETED)
    assert store.cancel("acme", "b").status == CANCELLED
    store.put(batch("c"))
    store.claim("one", 10.0)
    store.finish("one", batch("c"), COMPLETED)
    with pytest.raises(RequestError, match="completed: it has ended") as ended:
        store.cancel("acme", "c")
    assert ended.value.status == 409


def test_a_team_has_a_limit_of_batches_that_wait(store: BatchStore) -> None:
    for number in range(MAX_UNFINISHED):
        store.put(batch(f"b{number}"))
    with pytest.raises(RequestError) as full:
        store.put(batch("more"))
    assert (full.value.status, full.value.code) == (429, "too_many_batches")
    store.put(batch("others", "rival"))
    assert [each.batch_id for each in store.page("rival", Page())] == ["others"]
