"""The local index: against a plain dictionary, against exact search, between processes, and against `kill -9`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.base.errors import StoreError, VectorSpaceError
from coe.decision_log.database import Database
from coe.retrieval.index import local
from coe.retrieval.index.local import LocalIndex, LocalIndexes
from coe.retrieval.types import VectorSpace
from coe.router.types import FloatArray

Opener = Callable[..., LocalIndexes]
SPACE = VectorSpace(fingerprint="base", dim=16)
MAX_BYTES = 1 << 20

WRITER = """
import sys
import numpy as np
from coe.decision_log.database import Database
from coe.retrieval.index.local import LocalIndexes
from coe.retrieval.types import VectorSpace
rng = np.random.default_rng(0)
index = LocalIndexes(Database(sys.argv[1]), "base", VectorSpace(fingerprint="base", dim=16), 1 << 20).open("x")
for number in range(1_000_000):
    index.add(np.array([number]), rng.standard_normal((1, 16)).astype("f4"))
    if number % 3 == 2:
        index.remove(np.array([number - 1]))
    print(number, flush=True)
"""


def unit_rows(rng: np.random.Generator, n: int, dim: int = SPACE.dim) -> FloatArray:
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def clustered(rng: np.random.Generator, n: int, centres: FloatArray) -> FloatArray:
    """Rows around centres, as texts of few topics are."""
    rows = centres[rng.integers(0, len(centres), n)] + 0.08 * rng.standard_normal((n, centres.shape[1]))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Opens the indexes of one database, as another process each time; closes it at the end."""
    databases: list[Database] = []

    def open_indexes(space: VectorSpace = SPACE, max_bytes: int = MAX_BYTES) -> LocalIndexes:
        databases.append(Database(f"sqlite:///{tmp_path / 'x.db'}"))
        return LocalIndexes(databases[-1], "base", space, max_bytes)

    yield open_indexes
    for database in databases:
        database.close()


step: st.SearchStrategy[tuple[str, list[int]]] = st.one_of(
    st.tuples(st.just("add"), st.lists(st.integers(0, 30), min_size=1, max_size=6)),
    st.tuples(st.just("remove"), st.lists(st.integers(0, 30), max_size=6)),
    st.tuples(st.sampled_from(["search", "restart", "drop"]), st.just([])),
)


@settings(max_examples=40)
@given(st.lists(step, max_size=25), st.integers(0, 1000), st.sampled_from([1, 1_000_000]))
def test_every_process_finds_what_a_dictionary_holds(steps: list[tuple[str, list[int]]], seed: int, apart: int) -> None:
    """Two processes change it in turn, and both follow; keys are near each other, or `apart`."""
    rng = np.random.default_rng(seed)
    there: dict[int, FloatArray] = {}
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/x.db")
        processes = [LocalIndexes(database, "base", SPACE, MAX_BYTES) for _ in range(2)]
        for action, numbers in steps:
            keys = [apart * number for number in numbers]
            index = processes[0].open("x")
            if action == "add":
                vectors = unit_rows(rng, len(keys))
                index.add(np.array(keys), vectors)
                there |= dict(zip(keys, vectors, strict=True))
            elif action == "remove":
                assert index.remove(np.array(keys, dtype=np.int64)) == len(set(keys) & there.keys())
                there = {key: vector for key, vector in there.items() if key not in keys}
            elif action == "restart":
                processes[0] = LocalIndexes(database, "base", SPACE, MAX_BYTES)
            elif action == "search":
                index.search(unit_rows(rng, 1)[0], 3)
            else:
                processes[0].drop("x")
                there = {}
                processes[1] = LocalIndexes(database, "base", SPACE, MAX_BYTES)
            processes.reverse()
        for each in processes:
            check_same(each.open("x"), there, unit_rows(rng, 1)[0])
        database.close()


def check_same(index: LocalIndex, there: dict[int, FloatArray], query: FloatArray) -> None:
    assert len(index) == len(there)
    hits = index.search(query, 40)
    assert sorted(hits.keys) == sorted(there)
    wanted = [float(there[key] @ query) for key in hits.keys.tolist()]
    np.testing.assert_allclose(hits.scores, wanted, atol=5e-3)
    assert (np.diff(hits.scores) <= 0).all()
    for some in ([key for key in there if key % 2] + [99], [*there][:2], []):
        found = index.search(query, 40, among=np.array(some, dtype=np.int64))
        assert set(found.keys.tolist()) == set(some) & there.keys()


@pytest.mark.parametrize("wanted", ["all", "a half", "a tenth", "the half that is far"])
def test_recall_at_10_by_signs(wanted: str, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "RANKED", 200)
    rng = np.random.default_rng(7)
    centres = unit_rows(rng, 40, 96)
    vectors, queries = clustered(rng, 9000, centres), clustered(rng, 100, centres)
    index = opened(VectorSpace(fingerprint="base", dim=96)).open("x")
    index.add(np.arange(9000), vectors)
    gone = rng.permutation(9000)[:3000]
    index.remove(gone)
    there = np.setdiff1d(np.arange(9000), gone)
    found = []
    for query in queries:
        scores = vectors @ query
        share = {"all": 1.0, "a half": 0.5, "a tenth": 0.1}.get(wanted)
        keys = there[rng.random(6000) < share] if share else there[scores[there] < np.median(scores[there])]
        best = keys[np.argsort(-scores[keys])[:10]]
        hits = index.search(query, 10, None if wanted == "all" else keys)
        assert set(hits.keys.tolist()) <= set(keys.tolist())
        found.append(len(set(hits.keys.tolist()) & set(best.tolist())) / 10)
    assert np.mean(found) >= (0.95 if "far" in wanted else 0.99)


def test_a_filter_that_leaves_few_is_answered_exactly(opened: Opener) -> None:
    rng = np.random.default_rng(3)
    vectors, query = unit_rows(rng, 4000), unit_rows(rng, 1)[0]
    index = opened().open("x")
    index.add(np.arange(4000), vectors)
    order = np.argsort(-(vectors @ query))
    few = order[::50]
    mixed = rng.permutation(np.concatenate([few, few[:7], [5000]]))  # in no order, some twice, one not there
    assert index.search(query, 100, among=mixed).keys.tolist() == few.tolist()


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, opened: Opener) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    last, follower = -1, opened().open("x")
    query = unit_rows(np.random.default_rng(1), 1)[0]
    for line in writer.stdout:
        last = int(line)
        if last % 50 == 0:
            follower.search(query, 1)
        if last >= 400:
            break
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    last = int(rest[-1]) if rest else last
    acknowledged = {number for number in range(last + 1) if number % 3 != 1}  # the others are taken out after the next
    in_flight = {last + 1} | {number for number in (last,) if number % 3 == 1}
    for index in (follower, opened().open("x")):  # that followed, and that begins
        there = set(index.search(query, 100_000).keys.tolist())
        assert acknowledged <= there
        assert there - acknowledged <= in_flight
        assert len(index) == len(there)


def test_those_searched_last_stay_in_memory(opened: Opener) -> None:
    rows, bytes_each = unit_rows(np.random.default_rng(0), 100), 100 * (2 * 16 + local.BITS // 8 + 8)
    indexes = opened(max_bytes=2 * bytes_each)
    for name in "abc":
        indexes.open(name).add(np.arange(100), rows)
        assert indexes.open(name).search(rows[7], 1).keys.tolist() == [7]
    indexes.open("a")
    assert list(indexes._open) == ["c", "a"]
    assert indexes.open("b").size_bytes == 0
    assert indexes.open("b").search(rows[8], 1).keys.tolist() == [8]


@pytest.mark.parametrize("other", [VectorSpace(fingerprint="another", dim=16), VectorSpace(fingerprint="base", dim=32)])
def test_vectors_of_another_encoder_are_refused(other: VectorSpace, opened: Opener) -> None:
    opened().open("x")
    with pytest.raises(VectorSpaceError, match=r"index x holds vectors of base encoder base \(16 dimensions\)"):
        opened(other).open("x")


def test_wrong_dimensions_and_nan_are_refused_and_change_nothing(opened: Opener) -> None:
    index = opened().open("x")
    with pytest.raises(VectorSpaceError, match=r"shape \(1, 8\); this index takes \(n, 16\)"):
        index.add(np.array([1]), np.zeros((1, 8), np.float32))
    with pytest.raises(VectorSpaceError, match="NaN"):
        index.add(np.array([1]), np.full((1, 16), np.nan, np.float32))
    with pytest.raises(VectorSpaceError, match="shape"):
        index.search(np.zeros(8, np.float32), 1)
    assert len(index) == 0
    assert not len(index.search(np.ones(16, np.float32), 5).keys)


def test_indexes_are_apart_and_a_dropped_one_comes_back_empty(opened: Opener) -> None:
    indexes, other = opened(), opened()
    rows = unit_rows(np.random.default_rng(0), 2)
    indexes.open("a").add(np.array([1, 2]), rows)
    indexes.open("b").add(np.array([3]), rows[:1])
    held_elsewhere = other.open("a")
    assert held_elsewhere.search(rows[0], 1).keys.tolist() == [1]
    indexes.drop("a")
    indexes.drop("never-was")
    for use in (lambda: held_elsewhere.search(rows[0], 1), lambda: held_elsewhere.add(np.array([4]), rows[:1])):
        with pytest.raises(StoreError, match="index a: it was deleted"):
            use()
    assert len(indexes.open("a")) == 0
    assert len(opened().open("b")) == 1
