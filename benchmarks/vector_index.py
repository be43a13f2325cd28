"""The local index at size: build rate, memory, search latency and recall@10 against exact search.

    python -m benchmarks.vector_index [--vectors 1000000] [--spread LOW HIGH] [--texts FOLDER ...] [--out PAGE]

Vectors are synthetic: topics with full-rank noise whose spectrum falls like that of MiniLM's embeddings of real texts
(variance of direction i ~ i^-0.75). A query's nearest and tenth neighbour are at cosine 0.77 and 0.56 on average, as
among 30,000 real texts (0.77 and 0.57). `--spread 0.9 0.9` makes all vectors lie equally far from their topics, which
is harder to search than texts are.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer
from rich.console import Console

from retrieval.index.local import LocalIndex
from retrieval.index.space import VectorSpace
from retrieval.routing.pilot_library import Pilots, make_library
from retrieval.routing.pilot_router import build_router
from retrieval.types import BASE, Arm
from router.types import FloatArray

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "retrieval-index.md"
DIM, BATCH, QUERIES, LIMIT = 384, 10_000, 500, 10
ARMS, PILOTS = 30, 5_000
DECAY, VECTORS_PER_TOPIC = 0.75, 12
SPREAD = 0.35, 1.05
SEED = 0

T = TypeVar("T")

PAGE = """# The local index, {n:,} vectors of {dim} dimensions

    {command}

The vectors are synthetic, spread {spread} (see the script), in half precision; {queries} queries are not among them.
Searches use one thread, adding uses all cores. The figures for adding include the journal (on disk before each batch of
{batch:,} returns) and all snapshots. CPU seconds are of the whole process; wall time includes waiting for other
programs on the machine.

| | |
| --- | ---: |
| added, wall | {rate:,.0f} vectors/s ({wall:,.0f} s) |
| added, CPU | {cpu_rate:,.0f} vectors/CPU s ({cpu:,.0f} s) |
| peak memory while adding | {peak:,.0f} MiB |
| snapshot on disk | {disk:,.0f} MiB |
| open again | {opened:.2f} s |
| memory after opening and {queries} searches (mapped file included) | {mapped:,.0f} MiB |
| exact search of the same vectors, float32, CPU | {exact_cpu:.0f} ms |
| choosing among {arms} arms by {pilots:,} labelled queries, p50 / p95, wall | {choice50:.2f} / {choice95:.2f} ms |

Searches from mapped snapshots. The bars: recall@10 against exact search at least 0.99, p95 at most 15 ms at a million
vectors and 2 ms at 100,000, and at least 20,000 vectors added per second. Filters leave a random half. "Far": the
nearest and the tenth neighbour of a query are at cosine 0.49 and 0.40, instead of 0.77 and 0.56 as in real texts.

| vectors | recall@10 | p50 / p95, wall | p50 / p95, CPU |
| --- | ---: | ---: | ---: |
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


def resident_mib() -> float:
    """Memory of this process now, pages of mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def exact_best(
    queries: FloatArray, best: FloatArray, keys: np.ndarray, vectors: FloatArray, places: np.ndarray
) -> tuple[FloatArray, np.ndarray]:
    """The ten best of (scores, keys) so far and of further vectors, whose keys are `places`."""
    scores = queries @ vectors.T
    top = np.argpartition(-scores, LIMIT, axis=1)[:, :LIMIT]
    joined = np.concatenate([best, np.take_along_axis(scores, top, axis=1)], axis=1)
    names = np.concatenate([keys, places[top]], axis=1)
    order = np.argsort(-joined, axis=1)[:, :LIMIT]
    return np.take_along_axis(joined, order, axis=1), np.take_along_axis(names, order, axis=1)


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
    folder: Annotated[Path | None, typer.Option(help="A new folder, which keeps the index; default: none.")] = None,
    spread: Annotated[tuple[float, float], typer.Option(help="How far vectors lie from their topics.")] = SPREAD,
    texts: Annotated[list[Path] | None, typer.Option(help="Collection in BEIR layout; may be given again.")] = None,
) -> None:
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as temporary:
        real = on_texts(texts, Path(temporary) / "texts") if texts else ""
        page = measured(vectors, spread, folder or Path(temporary) / "index", real, console)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page)
    console.print(page)


def on_texts(folders: list[Path], index_folder: Path) -> str:
    """The page's part on real texts, all of them in one index."""
    from coe_offline.bert import Options, build
    from retrieval.training.collection import read_collection

    encoder, collections = build(Options()), [read_collection(folder) for folder in folders]
    vectors = encoder.encode([text for each in collections for text in each.documents])
    queries = encoder.encode([text for each in collections for text in each.split("test").texts][:QUERIES])
    index = LocalIndex(index_folder, VectorSpace(fingerprint="texts", dim=encoder.dim))
    index.add(np.arange(len(vectors)), vectors)
    index.snapshot()
    keys = exact_keys(queries, vectors)
    names = ", ".join(each.name for each in collections)
    line = search_line(index, f"{len(vectors):,} of {names}, by MiniLM", queries, keys)
    index.close()
    return line


def measured(n: int, spread: tuple[float, float], folder: Path, texts: str, console: Console) -> str:
    """Builds, opens again, searches. The page."""
    space = VectorSpace(fingerprint="synthetic", dim=DIM)
    made = source(n, spread)
    queries = made.take(QUERIES)
    index = LocalIndex(folder, space)
    best, keys = nothing()
    wall = cpu = exact_cpu = 0.0
    for first in range(0, n, BATCH):
        batch = made.take(min(BATCH, n - first))
        began, cpu_began = time.perf_counter(), time.process_time()
        index.add(np.arange(first, first + len(batch)), batch)
        wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - cpu_began
        cpu_began = time.process_time()
        best, keys = exact_best(queries, best, keys, batch, np.arange(first, first + len(batch)))
        exact_cpu += time.process_time() - cpu_began
        if (first // BATCH) % 10 == 9:
            console.print(f"{first + len(batch):,} vectors, {wall:.0f} s, {cpu:.0f} CPU s, {resident_mib():.0f} MiB")
    began, cpu_began = time.perf_counter(), time.process_time()
    index.snapshot()
    wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - cpu_began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    index.close()
    before = resident_mib()
    began = time.perf_counter()
    index = LocalIndex(folder, space)
    opened = time.perf_counter() - began
    for query in queries:
        index.search(query, LIMIT)
    mapped = resident_mib() - before
    lines = [search_line(index, f"{n:,}", queries, keys)]
    index.close()
    lines += other_lines(n, FAR, folder.parent / "far")
    for size in SMALLER:
        lines += other_lines(size, spread, folder.parent / f"index-{size}") if size < n else []
    choices = choice_ms(queries, made)
    return PAGE.format(
        n=n,
        dim=DIM,
        command=f"python -m benchmarks.vector_index --vectors {n} --spread {spread[0]:g} {spread[1]:g}",
        queries=QUERIES,
        batch=BATCH,
        rate=n / wall,
        wall=wall,
        cpu_rate=n / cpu,
        cpu=cpu,
        peak=peak,
        disk=sum(path.stat().st_size for path in folder.iterdir()) / 2**20,
        opened=opened,
        mapped=mapped,
        exact_cpu=exact_cpu / QUERIES * 1e3,
        arms=ARMS,
        pilots=PILOTS,
        choice50=float(np.percentile(choices, 50)),
        choice95=float(np.percentile(choices, 95)),
        spread=" to ".join(f"{value:g}" for value in spread),
        searches="\n".join([*lines, *([texts] if texts else [])]),
    )


def other_lines(n: int, spread: tuple[float, float], folder: Path) -> Iterator[str]:
    """Rows of the page: searches in the snapshot of another index, without and with a filter."""
    made = source(n, spread)
    queries, index = made.take(QUERIES), LocalIndex(folder, VectorSpace(fingerprint="synthetic", dim=DIM))
    found = {False: nothing(), True: nothing()}
    is_kept = np.random.default_rng(SEED).random(n) < 0.5
    for first in range(0, n, BATCH):
        batch, places = made.take(min(BATCH, n - first)), np.arange(first, min(first + BATCH, n))
        index.add(places, batch)
        kept = is_kept[places]
        found[False] = exact_best(queries, *found[False], batch, places)
        found[True] = exact_best(queries, *found[True], batch[kept], places[kept])
    index.snapshot()
    name = f"{n:,}{', far' if spread == FAR else ''}"
    yield search_line(index, name, queries, found[False][1])
    if spread != FAR:
        yield search_line(index, f"{name}, filtered", queries, found[True][1], np.flatnonzero(is_kept))
    index.close()


def nothing() -> tuple[FloatArray, np.ndarray]:
    """The best of no vectors: scores and keys (q, 10)."""
    return np.full((QUERIES, LIMIT), -np.inf, dtype=np.float32), np.full((QUERIES, LIMIT), -1, dtype=np.int64)


def exact_keys(queries: FloatArray, vectors: FloatArray) -> np.ndarray:
    """The ten best vectors (q, 10) of each query."""
    best, keys = (each[: len(queries)] for each in nothing())
    for first in range(0, len(vectors), BATCH):
        part = vectors[first : first + BATCH]
        best, keys = exact_best(queries, best, keys, part, np.arange(first, first + len(part)))
    return keys


def timed(call: Callable[[FloatArray], T], queries: FloatArray) -> tuple[list[float], list[float], list[T]]:
    """Wall and CPU time of each call, milliseconds, and what it returned."""
    wall, cpu, found = [], [], []
    for query in queries:
        began, cpu_began = time.perf_counter(), time.thread_time()
        found.append(call(query))
        cpu.append((time.thread_time() - cpu_began) * 1e3)
        wall.append((time.perf_counter() - began) * 1e3)
    return wall, cpu, found


def search_line(
    index: LocalIndex, name: str, queries: FloatArray, keys: np.ndarray, among: np.ndarray | None = None
) -> str:
    """A row of the page: searches against the exact keys (q, 10)."""
    wall, cpu, hits = timed(partial(index.search, limit=LIMIT, among=among), queries)
    found = sum(len(set(hit.keys.tolist()) & set(wanted.tolist())) for hit, wanted in zip(hits, keys, strict=True))
    (p50, p95), (cpu50, cpu95) = np.percentile(wall, [50, 95]), np.percentile(cpu, [50, 95])
    return f"| {name} | {found / keys.size:.4f} | {p50:.2f} / {p95:.2f} ms | {cpu50:.2f} / {cpu95:.2f} ms |"


if __name__ == "__main__":
    typer.run(main)
