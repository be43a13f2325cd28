"""The index in Postgres, against a real server with pgvector where one can be had from a package."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from coe.base.errors import ConfigError, StoreError, VectorSpaceError
from coe.retrieval.index import pgvector
from coe.retrieval.index.pgvector import PgvectorIndex, PgvectorIndexes
from coe.retrieval.types import VectorSpace
from coe.router.types import FloatArray
from tests.postgres import running_postgres

SPACE = VectorSpace(fingerprint="base", dim=32)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_postgres() as it:
        yield it


def unit_rows(rng: np.random.Generator, n: int) -> FloatArray:
    rows = rng.standard_normal((n, SPACE.dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def test_add_replace_remove_filter_and_search(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgvector, "FEW", 900)
    rng = np.random.default_rng(0)
    indexes = PgvectorIndexes(url, "first", SPACE)
    index, vectors = indexes.open("a"), unit_rows(rng, 2000)
    index.add(np.arange(2000), vectors)
    index.add(np.array([5, 5]), np.stack([vectors[0], -vectors[5]]))
    vectors[5] = -vectors[5]
    assert index.remove(np.array([7, 7, 9999])) == 1
    assert len(index) == 1999
    exact, found, found_of_many = 0, 0, 0
    for query in unit_rows(rng, 30):
        order = [key for key in np.argsort(-(vectors @ query)).tolist() if key != 7]
        hits = index.search(query, 10)
        found += len(set(hits.keys.tolist()) & set(order[:10]))
        exact += 10
        np.testing.assert_allclose(hits.scores, vectors[hits.keys] @ query, atol=1e-5)
        among = np.arange(0, 2000, 70)
        wanted = [key for key in order if key % 70 == 0 and key != 7][:5]
        assert index.search(query, 5, among=among).keys.tolist() == wanted
        many = np.arange(0, 2000, 1 + (exact // 10) % 2)
        assert len(many) >= 1000
        wanted = [key for key in order if key in set(many.tolist())][:10]
        filtered = index.search(query, 10, among=many)
        assert set(filtered.keys.tolist()) <= set(many.tolist())
        found_of_many += len(set(filtered.keys.tolist()) & set(wanted))
    assert found / exact >= 0.98
    assert found_of_many / exact >= 0.98
    far = np.sort(np.argsort(vectors @ vectors[0])[:1500])  # none of the nearest passes
    wanted = [key for key in np.argsort(-(vectors @ vectors[0])).tolist() if key in set(far.tolist()) and key != 7][
        :600
    ]
    assert set(index.search(vectors[0], 600, among=far).keys.tolist()) == set(wanted)
    assert len(index.search(vectors[0], 400).keys) == 400
    indexes.close()


def test_a_filter_on_a_table_that_postgres_has_not_looked_at_asks_the_graph(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector, "FEW", 100)
    rng = np.random.default_rng(2)
    indexes = PgvectorIndexes(url, "unseen", SPACE)
    index, among = indexes.open("a"), np.sort(rng.choice(2000, 200, replace=False))
    index.add(np.arange(2000), unit_rows(rng, 2000))
    nearest, one_by_one, opened = PgvectorIndex._nearest, 0, []

    def counted(index: PgvectorIndex, query: FloatArray, limit: int, *source: object) -> object:
        nonlocal one_by_one
        one_by_one += len(source) > 0
        return nearest(index, query, limit, *source)

    monkeypatch.setattr(PgvectorIndex, "_nearest", counted)
    for query in unit_rows(rng, 20):
        opened.append(indexes.open("a"))
        found = opened[-1].search(query, 100, among, enough=30).keys
        assert len(found) >= 30
        assert set(found.tolist()) <= set(among.tolist())
    assert one_by_one < 10
    assert len(set(map(id, opened))) == 1  # so that its size is asked for once
    indexes.close()


def test_another_gateway_sees_the_same_and_another_encoder_is_refused(url: str) -> None:
    rows = unit_rows(np.random.default_rng(1), 3)
    first, second = PgvectorIndexes(url, "second", SPACE), PgvectorIndexes(url, "second", SPACE)
    first.open("a").add(np.arange(3), rows)
    assert second.open("a").search(rows[1], 1).keys.tolist() == [1]
    other = PgvectorIndexes(url, "second", VectorSpace(fingerprint="another", dim=32))
    with pytest.raises(VectorSpaceError, match="holds vectors of base encoder base"):
        other.open("a")
    with pytest.raises(VectorSpaceError, match="shape"):
        first.open("a").add(np.array([1]), np.zeros((1, 8), np.float32))
    opened = second.open("a")
    first.drop("a")
    first.drop("never-was")
    with pytest.raises(StoreError, match="it was deleted"):
        opened.search(rows[1], 1)
    anew = PgvectorIndexes(url, "second", SPACE)
    assert len(anew.open("a")) == 0
    for each in (first, second, other, anew):
        each.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("sqlite:///x.db", "is of database 'sqlite'; allowed: postgresql://"), ("nonsense", "is not a database URL")],
)
def test_what_is_no_postgres_is_a_clear_error(wrong: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PgvectorIndexes(wrong, "x", SPACE)


def test_a_server_that_is_away_is_worth_another_try() -> None:
    with pytest.raises(StoreError, match="cannot find pgvector in Postgres") as caught:
        PgvectorIndexes("postgresql://coe:secret@127.0.0.1:1/x", "x", SPACE)
    assert caught.value.is_retryable
    assert "secret" not in str(caught.value)
