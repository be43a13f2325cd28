"""The local index at size: adding, opening, memory, search latency and recall@10 against exact search.

    python -m benchmarks.vector_index [--vectors 1000000] [--spread LOW HIGH] [--out PAGE]

Vectors are synthetic: topics with full-rank noise whose spectrum falls like that of MiniLM's embeddings of real texts
(variance of direction i ~ i^-0.75). A query's nearest and tenth neighbour are at cosine 0.77 and 0.56 on average, as
among 30,000 real texts (0.77 and 0.57). `--spread 0.9 0.9` makes all vectors lie equally far from their topics, which
is harder to search than texts are.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer
from rich.console import Console

from coe.decision_log.database import Database
from coe.retrieval.index.local import LocalIndex, LocalIndexes
from coe.retrieval.routing.pilot_library import Pilots, make_library
from coe.retrieval.routing.pilot_router import build_router
from coe.retrieval.types import BASE, Arm, VectorSpace
from coe.router.types import FloatArray

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "retrieval-index.md"
DIM, BATCH, QUERIES, LIMIT = 384, 10_000, 300, 10
ARMS, PILOTS = 30, 5_000
DECAY, VECTORS_PER_TOPIC = 0.75, 12
SPREAD = 0.35, 1.05
SEED = 0
SHARES = 0.9, 0.5, 0.2, 0.02

T = TypeVar("T")

PAGE = """# The local index, {n:,} vectors of {dim} dimensions

    {command}

Made on {date}. The vectors are synthetic, spread {spread} (see the script), in half precision in SQLite; {queries}
queries are not among them. One thread. CPU seconds are of the whole process; wall time includes waiting for other
programs on the machine.

| | |
| --- | ---: |
| added in batches of {batch:,}, each on disk before the call returns, wall | {rate:,.0f} vectors/s ({wall:,.0f} s) |
| added, CPU | {cpu_rate:,.0f} vectors/CPU s ({cpu:,.0f} s) |
| database on disk | {disk:,.0f} MiB |
| first search of a process, which reads the vectors | {opened:.2f} s |
| memory for them | {held:,.0f} MiB |
| choosing among {arms} arms by {pilots:,} labelled queries, p50 / p95, wall | {choice50:.2f} / {choice95:.2f} ms |

A filter leaves a random share. "Far": the nearest and the tenth neighbour of a query are at cosine 0.49 and 0.40,
instead of 0.77 and 0.56 as in real texts. The last column is the median over queries of the time with the filter
divided by the time without it, of one search after the other; in rows without a filter that of the same search again.

| vectors | recall@10 | p50 / p95, wall | p50 / p95, CPU | to no filter, CPU |
| --- | ---: | ---: | ---: | ---: |
{searches}

`tests/retrieval/index/test_local.py` kills a process that adds and removes: nothing that was acknowledged is lost.
"""
FAR = 1.3, 1.3
"""A spread at which a query's nearest and tenth neighbour are at cosine 0.49 and 0.40."""
SMALLER = (30_000, 100_000, 300_000)
"""Sizes of indexes that are searched as well."""


@dataclass(frozen=True)
class Source:
    """A source of vectors: topics (t, d), the spectrum (d,), a generator."""

    topics: FloatArray
    scale: FloatArray
    spread: tuple[float, float]
    rng: np.random.Generator

    def take(self, n: int) -> FloatArray:
        """(n, d) unit rows."""
        noise = self.rng.standard_normal((n, len(self.scale)), dtype=np.float32) * self.scale
        spread = self.rng.uniform(*self.spread, (n, 1)).astype(np.float32)
        rows = self.topics[self.rng.integers(0, len(self.topics), n)] + spread * noise
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def source(n: int, spread: tuple[float, float]) -> Source:
    rng = np.random.default_rng(SEED)
    scale = (np.arange(1, DIM + 1) ** (-DECAY / 2)).astype(np.float32)
    topics = rng.standard_normal((max(10, n // VECTORS_PER_TOPIC), DIM), dtype=np.float32) * scale
    return Source(topics, scale, spread, rng)


def choice_ms(queries: FloatArray, made: Source) -> list[float]:
    """Time that routing adds to each query, milliseconds: gains of arms from labelled queries nearby."""
    names = [f"expert-{number}" for number in range(1, ARMS)]
    pilots = Pilots(
        embeddings=made.take(PILOTS),
        scores=made.rng.random((PILOTS, ARMS), dtype=np.float32),
        measured=np.ones((PILOTS, ARMS), dtype=np.bool_),
        data_set=made.rng.integers(0, 10, PILOTS),
        keys=np.arange(PILOTS),
        located=np.empty((0, DIM), dtype=np.float32),
        located_in=np.empty(0, dtype=np.int64),
    )
    arms = [Arm(members=(name,), weights=(1.0,)) for name in (BASE, *names)]
    fingerprints = {BASE: "synthetic", **dict.fromkeys(names, "")}
    library = make_library(pilots, arms, [f"set-{number}" for number in range(10)], fingerprints, created_at="")
    router = build_router(library, base_fingerprint="synthetic", experts=names)
    return timed(lambda query: router.choose(query[None]), queries)[0]


def main(
    vectors: Annotated[int, typer.Option(help="How many vectors.")] = 1_000_000,
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = RESULTS,
    spread: Annotated[tuple[float, float], typer.Option(help="How far vectors lie from their topics.")] = SPREAD,
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(measured(vectors, spread))
    Console(highlight=False).print(out.read_text())


def measured(n: int, spread: tuple[float, float]) -> str:
    """Builds, opens again, searches. The page."""
    made = source(n, spread)
    queries, vectors = made.take(QUERIES), made.take(n)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as indexes:
        wall, cpu = added(indexes.open("x"), vectors)
        with opened(Path(folder)) as others:
            index = others.open("x")
            began = time.perf_counter()
            index.search(queries[0], LIMIT)
            first_s = time.perf_counter() - began
            lines = list(search_lines(index, f"{n:,}", queries, vectors))
        disk = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
    for size, each in ((n, FAR), *((size, spread) for size in SMALLER if size < n)):
        lines += other_lines(size, each)
    choices = choice_ms(queries, made)
    return PAGE.format(
        n=n,
        date=datetime.now(UTC).date(),
        dim=DIM,
        command=f"python -m benchmarks.vector_index --vectors {n} --spread {spread[0]:g} {spread[1]:g}",
        queries=QUERIES,
        batch=BATCH,
        rate=n / wall,
        wall=wall,
        cpu_rate=n / cpu,
        cpu=cpu,
        disk=disk,
        opened=first_s,
        held=index.size_bytes / 2**20,
        arms=ARMS,
        pilots=PILOTS,
        choice50=float(np.percentile(choices, 50)),
        choice95=float(np.percentile(choices, 95)),
        spread=" to ".join(f"{value:g}" for value in spread),
        searches="\n".join(lines),
    )


@contextmanager
def opened(folder: Path) -> Iterator[LocalIndexes]:
    database = Database(f"sqlite:///{folder / 'coe.db'}")
    yield LocalIndexes(database, "base", VectorSpace(fingerprint="synthetic", dim=DIM), 1 << 40)
    database.close()


def added(index: LocalIndex, vectors: FloatArray) -> tuple[float, float]:
    """Adds them. Wall and CPU time, seconds."""
    began, cpu_began = time.perf_counter(), time.process_time()
    for first in range(0, len(vectors), BATCH):
        some = vectors[first : first + BATCH]
        index.add(np.arange(first, first + len(some)), some)
    return time.perf_counter() - began, time.process_time() - cpu_began


def other_lines(n: int, spread: tuple[float, float]) -> list[str]:
    """Rows of the page: searches in another index."""
    made = source(n, spread)
    queries, vectors = made.take(QUERIES), made.take(n)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as indexes:
        added(indexes.open("x"), vectors)
        indexes.open("x").search(queries[0], LIMIT)
        name = f"{n:,}{', far' if spread == FAR else ''}"
        return list(search_lines(indexes.open("x"), name, queries, vectors))


def search_lines(index: LocalIndex, name: str, queries: FloatArray, vectors: FloatArray) -> Iterator[str]:
    """Rows of the page: searches without a filter, and with each filter, one of both in turn."""
    drawn = np.random.default_rng(SEED).random(len(vectors))
    for share in (1.0,) if "far" in name else (1.0, *SHARES):
        among = np.flatnonzero(drawn < share)
        wall, cpu = (np.zeros((2, len(queries))) for _ in range(2))
        found = 0
        for place, query in enumerate(queries):
            for row, given in enumerate((None, None if share == 1.0 else among)):
                call = partial(index.search, limit=LIMIT, among=given)
                (wall[row, place],), (cpu[row, place],), (hits,) = timed(call, query[None])
            scores = vectors[among] @ query
            exact = among[np.argpartition(-scores, LIMIT)[:LIMIT]]
            found += len(set(hits.keys.tolist()) & set(exact.tolist()))
        label = name if share == 1.0 else f"{name}, filter leaves {share:.0%}"
        (p50, p95), (cpu50, cpu95) = np.percentile(wall[1], [50, 95]), np.percentile(cpu[1], [50, 95])
        times = f"{p50:.2f} / {p95:.2f} ms | {cpu50:.2f} / {cpu95:.2f} ms | {np.median(cpu[1] / cpu[0]):.2f}"
        yield f"| {label} | {found / (LIMIT * len(queries)):.4f} | {times} |"


def timed(call: Callable[[FloatArray], T], queries: FloatArray) -> tuple[list[float], list[float], list[T]]:
    """Wall and CPU time of each call, milliseconds, and what it returned."""
    wall, cpu, found = [], [], []
    for query in queries:
        began, cpu_began = time.perf_counter(), time.thread_time()
        found.append(call(query))
        cpu.append((time.thread_time() - cpu_began) * 1e3)
        wall.append((time.perf_counter() - began) * 1e3)
    return wall, cpu, found


if __name__ == "__main__":
    typer.run(main)
