"""The local index: against a plain dictionary, against exact search, and against crashes."""

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

from base.errors import StoreError, VectorSpaceError
from retrieval.index import local, rows
from retrieval.index.local import LocalIndex, LocalIndexes
from retrieval.index.space import VectorSpace
from router.types import FloatArray

Opener = Callable[..., LocalIndex]
SPACE = VectorSpace(fingerprint="base", dim=16)

WRITER = """
import sys
from pathlib import Path
import numpy as np
from retrieval.index import local
from retrieval.index.space import VectorSpace
local.SNAPSHOT_BYTES = 6000
rng = np.random.default_rng(0)
index = local.LocalIndex(Path(sys.argv[1]), VectorSpace(fingerprint="base", dim=16))
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
def opened() -> Iterator[Opener]:
    """Opens indexes and closes what is still open at the end."""
    indexes: list[LocalIndex] = []

    def open_index(folder: Path, space: VectorSpace = SPACE) -> LocalIndex:
        indexes.append(LocalIndex(folder, space))
        return indexes[-1]

    yield open_index
    for index in indexes:
        index.abandon()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots happen after a few changes."""
    monkeypatch.setattr(local, "SNAPSHOT_BYTES", 2000)


step: st.SearchStrategy[tuple[str, list[int]]] = st.one_of(
    st.tuples(st.just("add"), st.lists(st.integers(0, 30), min_size=1, max_size=6)),
    st.tuples(st.just("remove"), st.lists(st.integers(0, 30), max_size=6)),
    st.tuples(st.sampled_from(["crash", "close", "snapshot"]), st.just([])),
)


@pytest.mark.usefixtures("small_steps")
@settings(max_examples=60)
@given(st.lists(step, max_size=25), st.integers(0, 1000))
def test_it_holds_what_a_dictionary_holds(steps: list[tuple[str, list[int]]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    held: dict[int, FloatArray] = {}
    with tempfile.TemporaryDirectory() as folder:
        index = LocalIndex(Path(folder) / "x", SPACE)
        for action, keys in steps:
            if action == "add":
                vectors = unit_rows(rng, len(keys))
                index.add(np.array(keys), vectors)
                held |= dict(zip(keys, vectors, strict=True))
            elif action == "remove":
                assert index.remove(np.array(keys, dtype=np.int64)) == len(set(keys) & held.keys())
                held = {key: vector for key, vector in held.items() if key not in keys}
            elif action == "snapshot":
                index.snapshot()
            else:
                index.abandon() if action == "crash" else index.close()
                index = LocalIndex(Path(folder) / "x", SPACE)
        assert len(index) == len(held)
        query = unit_rows(rng, 1)[0]
        hits = index.search(query, 40)
        assert sorted(hits.keys) == sorted(held)
        wanted = [float(held[key] @ query) for key in hits.keys.tolist()]
        np.testing.assert_allclose(hits.scores, wanted, atol=5e-3)
        assert (np.diff(hits.scores) <= 0).all()
        some = np.array([key for key in held if key % 2] + [99], dtype=np.int64)
        assert set(index.search(query, 40, among=some).keys.tolist()) == set(some.tolist()) & held.keys()
        index.close()


@pytest.mark.parametrize("is_mapped", [False, True])
def test_recall_at_10_is_099_or_more(
    tmp_path: Path, is_mapped: bool, monkeypatch: pytest.MonkeyPatch, opened: Opener
) -> None:
    monkeypatch.setattr(rows, "RANKED", 0)
    rng = np.random.default_rng(7)
    centres = unit_rows(rng, 40, 96)
    vectors, queries = clustered(rng, 6000, centres), clustered(rng, 100, centres)
    index = opened(tmp_path / "x", VectorSpace(fingerprint="base", dim=96))
    index.add(np.arange(6000), vectors)
    if is_mapped:
        index.snapshot()
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    found = [set(index.search(query, 10).keys.tolist()) for query in queries]
    recall = np.mean([len(mine & set(best.tolist())) / 10 for mine, best in zip(found, exact, strict=True)])
    assert recall >= 0.99


def test_far_neighbours_are_found_by_ranking_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opener
) -> None:
    monkeypatch.setattr(rows, "RANKED", 0)
    monkeypatch.setattr(rows, "RANKED_PER_HIT", 10)
    rng = np.random.default_rng(11)
    vectors, queries = unit_rows(rng, 6000, 96), unit_rows(rng, 50, 96)
    index = opened(tmp_path / "x", VectorSpace(fingerprint="base", dim=96))
    index.add(np.arange(6000), vectors)
    index.remove(np.arange(0, 6000, 7))
    index.add(np.arange(0, 6000, 7), vectors[::7])
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]

    def recall() -> float:
        found = [set(index.search(query, 10).keys.tolist()) for query in queries]
        return float(np.mean([len(mine & set(best.tolist())) / 10 for mine, best in zip(found, exact, strict=True)]))

    assert recall() >= 0.98
    monkeypatch.setattr(rows, "DEVIATIONS", -10.0)
    assert recall() < 0.9


def test_products_of_halves_are_those_of_singles() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)][:, None]
    for value in (1.0, -0.37):
        query = np.array([value], np.float32)
        np.testing.assert_array_equal(rows.products(finite, query), finite.astype(np.float32) @ query)


def test_a_filter_that_leaves_many_keys_finds_the_best_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opener
) -> None:
    monkeypatch.setattr(rows, "RANKED", 0)
    monkeypatch.setattr(rows, "RANKED_PER_HIT", 6)
    rng = np.random.default_rng(3)
    vectors = unit_rows(rng, 2000)
    index = opened(tmp_path / "x")
    index.add(np.arange(2000), vectors)
    among, query = np.arange(0, 2000, 50), unit_rows(rng, 1)[0]
    exact = among[np.argsort(-(vectors[among] @ query))[:5]]
    assert len(set(index.search(query, 5, among=among).keys.tolist()) & set(exact.tolist())) >= 4
    mixed = rng.permutation(np.concatenate([among, among[:7], [5000]]))  # in no order, some twice, one not there
    assert sorted(index.search(query, 100, among=mixed).keys.tolist()) == among.tolist()


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, opened: Opener) -> None:
    folder = tmp_path / "x"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
    last = -1
    for line in writer.stdout:
        last = int(line)
        if last >= 400:
            break
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    last = int(rest[-1]) if rest else last
    index = opened(folder)
    held = set(index.search(unit_rows(np.random.default_rng(1), 1)[0], 100_000).keys.tolist())
    acknowledged = {number for number in range(last + 1) if number % 3 != 1}  # the others are taken out after the next
    assert acknowledged <= held
    in_flight = {last + 1} | {number for number in (last,) if number % 3 == 1}
    assert held - acknowledged <= in_flight
    assert index._manifest.generation > 0, "the test saw no snapshot"
    index.close()


def test_what_a_crash_cut_short_is_dropped_and_the_rest_stays(tmp_path: Path, opened: Opener) -> None:
    index = opened(tmp_path / "x")
    index.add(np.arange(3), unit_rows(np.random.default_rng(0), 3))
    whole = (tmp_path / "x/journal-0.log").stat().st_size
    index.add(np.arange(3, 5), unit_rows(np.random.default_rng(1), 2))
    index.abandon()
    content = (tmp_path / "x/journal-0.log").read_bytes()
    for size in range(whole, len(content)):
        (tmp_path / "x/journal-0.log").write_bytes(content[:size])
        index = opened(tmp_path / "x")
        assert len(index) == 3
        index.abandon()
    index = opened(tmp_path / "x")
    index.add(np.array([9]), unit_rows(np.random.default_rng(2), 1))
    index.abandon()
    assert len(opened(tmp_path / "x")) == 4


def test_damage_in_the_middle_of_a_journal_is_an_error_that_names_the_byte(tmp_path: Path, opened: Opener) -> None:
    index = opened(tmp_path / "x")
    index.add(np.arange(3), unit_rows(np.random.default_rng(0), 3))
    index.add(np.arange(3, 6), unit_rows(np.random.default_rng(1), 3))
    index.abandon()
    path = tmp_path / "x/journal-0.log"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"index x is damaged \(journal-0\.log at byte 0"):
        opened(tmp_path / "x")


def test_a_cut_snapshot_is_an_error(tmp_path: Path, opened: Opener) -> None:
    index = opened(tmp_path / "x")
    index.add(np.arange(30), unit_rows(np.random.default_rng(0), 30))
    index.snapshot()
    index.abandon()
    path = tmp_path / "x/rows-1.bin"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match="is damaged"):
        opened(tmp_path / "x")


@pytest.mark.parametrize("other", [VectorSpace(fingerprint="another", dim=16), VectorSpace(fingerprint="base", dim=32)])
def test_vectors_of_another_encoder_are_refused(tmp_path: Path, other: VectorSpace, opened: Opener) -> None:
    opened(tmp_path / "x").close()
    with pytest.raises(VectorSpaceError, match=r"holds vectors of base encoder base \(16 dimensions\)"):
        opened(tmp_path / "x", other)


def test_wrong_dimensions_and_nan_are_refused_and_change_nothing(tmp_path: Path, opened: Opener) -> None:
    index = opened(tmp_path / "x")
    with pytest.raises(VectorSpaceError, match=r"shape \(1, 8\); this index takes \(n, 16\)"):
        index.add(np.array([1]), np.zeros((1, 8), np.float32))
    with pytest.raises(VectorSpaceError, match="NaN"):
        index.add(np.array([1]), np.full((1, 16), np.nan, np.float32))
    with pytest.raises(VectorSpaceError, match="shape"):
        index.search(np.zeros(8, np.float32), 1)
    assert len(index) == 0
    assert not len(index.search(np.ones(16, np.float32), 5).keys)


def test_indexes_are_apart_and_a_dropped_one_comes_back_empty(tmp_path: Path) -> None:
    indexes = LocalIndexes(tmp_path, SPACE)
    rows = unit_rows(np.random.default_rng(0), 2)
    indexes.open("a").add(np.array([1, 2]), rows)
    indexes.open("b").add(np.array([3]), rows[:1])
    indexes.drop("a")
    indexes.drop("never-was")
    assert len(indexes.open("a")) == 0
    assert len(indexes.open("b")) == 1
    indexes.close()
    again = LocalIndexes(tmp_path, SPACE)
    assert len(again.open("b")) == 1
    again.close()
