"""Searches with filters on a store of 100,000 chunks, against the same searches without one.

    python -m benchmarks.search_filters [--chunks 100000] [--searches 100] [--postgres]

The texts are words drawn by Zipf's law, encoded by kind `hashing`, in files of 100 chunks with an attribute `part` from
0 to 99. One search follows the other, in turn with and without the filter; times are of the processor. `first` is that
of a filter that was not used before. With `--postgres` everything is in a Postgres with pgvector from the package
pgserver, and times are of the processor too: its own and that of the server's process.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from sqlalchemy.engine import make_url

from coe.decision_log.database import Database
from coe.retrieval.build_experts import build_experts
from coe.retrieval.routing.live_pilots import make_choices
from coe.retrieval.routing.query_routing import QueryRouting
from coe.retrieval.service import index_opener
from coe.retrieval.stores.catalog import Catalog
from coe.retrieval.stores.chunk_table import ChunkTable
from coe.retrieval.stores.chunking import StaticChunking
from coe.retrieval.stores.document_vectors import DocumentVectors
from coe.retrieval.stores.files import Files, insert_file, new_file
from coe.retrieval.stores.filters import Comparison
from coe.retrieval.stores.ingestion import completed
from coe.retrieval.stores.store_records import Addition, VectorStore
from coe.retrieval.stores.store_search import SearchRequest, StoreSearch
from coe.router.config.retrieval import RetrievalConfig
from tests.postgres import running_postgres

CHUNKS_OF_A_FILE, WORDS_OF_A_CHUNK, VOCABULARY = 100, 40, 20_000
LEFT = 100, 50, 20, 5, 1  # percent of the chunks that a filter leaves
STORE = VectorStore("vs_filters", "", "filters", None, {}, 0.0, 0.0, None, "")
CONFIG = {"encoder": {"kind": "hashing"}, "experts": {"bm25": {"kind": "bm25"}}}


def main(
    chunks: Annotated[int, typer.Option(help="How many chunks.")] = 100_000,
    searches: Annotated[int, typer.Option(help="Searches for each row.")] = 100,
    postgres: Annotated[bool, typer.Option("--postgres", help="Postgres and pgvector, not SQLite.")] = False,
) -> None:
    rng = np.random.default_rng(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_postgres() if postgres else nullcontext() as url,
        opened(url or f"sqlite:///{folder}/coe.db", Path(folder), is_postgres=postgres) as (search, fill),
    ):
        store = asyncio.run(fill([" ".join(words_of(rng, WORDS_OF_A_CHUNK)) for _ in range(chunks)]))
        queries = [" ".join(words_of(rng, 6)) for _ in range(searches)]
        clock = time.process_time if url is None else partial(time_with_postgres, url)
        for model in ("base", "bm25", "auto"):
            for line in lines(search, store, model, queries, clock):
                Console(highlight=False).print(line, soft_wrap=True)


def time_with_postgres(url: str) -> float:
    """Seconds of the processor that this process and the server's have taken, as Linux counts them."""
    server = Path(str(make_url(url).query["host"]), "postmaster.pid").read_text().split()[0]
    backends = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    times = [int(Path(f"/proc/{each}/schedstat").read_text().split()[0]) for each in backends]
    return time.process_time() + sum(times) / 1e9


def words_of(rng: np.random.Generator, count: int) -> list[str]:
    return [f"w{number}" for number in np.minimum(rng.zipf(1.2, count), VOCABULARY)]


@contextmanager
def opened(url: str, folder: Path, *, is_postgres: bool) -> Iterator[tuple[StoreSearch, Callable]]:
    """The search, and what fills its store with texts."""
    config = RetrievalConfig.model_validate(CONFIG | {"pgvector_url_env": "DATABASE_URL" if is_postgres else None})
    experts = build_experts(config, folder)
    database = Database(url)
    files = Files(database, folder / "incoming")
    catalog, table = Catalog(files), ChunkTable(database)
    vectors = DocumentVectors(experts, table, index_opener(config, database, {}, url))
    routing = QueryRouting(experts, make_choices(None, experts))

    async def fill(texts: list[str]) -> VectorStore:
        catalog.put_store(VectorStore(**{**vars(STORE), "space": vectors.base_space}))
        for number, start in enumerate(range(0, len(texts), CHUNKS_OF_A_FILE)):
            file = new_file("", f"{number}.txt", "user_data", 0)
            with database.transaction("add a file") as connection:
                insert_file(connection, file, (folder / "empty").open("wb+"))
            chunking = StaticChunking(max_chunk_size_tokens=200, chunk_overlap_tokens=0)
            catalog.attach(STORE.store_id, [Addition(file.file_id, {"part": number % 100})], chunking)
            keys, _ = table.replace(STORE.store_id, file.file_id, texts[start : start + CHUNKS_OF_A_FILE])
            vectors.add(STORE.store_id, vectors.base_space, keys)
            catalog.change_store_file(STORE.store_id, file.file_id, completed(0))
        store = catalog.store(STORE.store_id, None)
        assert store is not None
        return store

    yield StoreSearch(routing, catalog, table, vectors), fill
    vectors.close()
    database.close()


def lines(
    search: StoreSearch, store: VectorStore, model: str, queries: list[str], clock: Callable[[], float]
) -> Iterator[str]:
    """A row for each filter: the median time without it, with it, and of both the ratio."""

    def timed(query: str, condition: Comparison | None) -> float:
        began = clock()
        search.search(store, SearchRequest((query,), 10, model, condition, may_take_long=True))
        return (clock() - began) * 1e3

    timed(queries[0], None)
    for percent in LEFT:
        condition = Comparison(type="lt", key="part", value=percent)
        first = timed(queries[0], condition)
        times = np.array([(timed(query, None), timed(query, condition)) for query in queries])
        ratios = np.random.default_rng(0).choice(times[:, 1] / times[:, 0], (1000, len(times)))
        low, high = np.percentile(np.median(ratios, axis=1), [2.5, 97.5])
        plain, filtered = np.median(times, axis=0)
        ratio = np.median(times[:, 1] / times[:, 0])
        yield (
            f"{model}, filter leaves {percent}%: {plain:.2f} ms without, {filtered:.2f} with, ratio {ratio:.2f} "
            f"[{low:.2f}, {high:.2f}], first {first:.0f} ms"
        )


if __name__ == "__main__":
    typer.run(main)
