"""Time and memory of `coe retrain` and `coe eval log` over a log of N decisions.

    python -m benchmarks.retrain_scale [--decisions 100000] [--folder DIR] [--no-texts]

Writes a data folder with a log as a gateway keeps it (records, feedback, embeddings in half precision), fits a first
router, and runs `coe retrain --json` twice and `coe eval log`, each as a process of its own, whose peak memory the
kernel reports.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from sqlalchemy import Connection, create_engine, text

from base.shipped import seed_folder
from decision_log.database import Database
from decision_log.decision_record import DecisionRecord, TerminalState
from decision_log.default_database import default_database_url
from fleet.router_registry import Registry
from router.build import build_encoder, load_router
from router.config import CoeConfig, load_config
from router.features import to_bytes
from router.types import DecisionReason, RoutingDecision
from training.datasets.labelled_queries import read_seed
from training.datasets.outcomes import write_outcomes
from training.fit_inputs import TrainRequest, fit_configured
from training.types import LabelledQuery, OutcomeTable

ROOT = Path(__file__).parent.parent
EXPERTS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
EXPLORED = 0.1
RATED = 0.5
PROBES_PER_CATEGORY = 12
BATCH_ROWS = 5000
ASKED = 200
"""Queries whose vectors the log repeats; their texts differ."""


@dataclass(frozen=True)
class Cost:
    """Seconds of wall clock and of processors, and the largest resident memory in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def write_config(folder: Path, scorer: str) -> Path:
    """The composition that ships with the project, over experts that nobody calls."""
    import yaml

    shipped = yaml.safe_load((ROOT / "experts.yaml").read_text(encoding="utf-8"))
    config = {
        "version": 1,
        "categories": shipped["categories"],
        "experts": {name: {"engine": "echo", "model": name, "params_b": 1.0} for name in EXPERTS},
        "router": shipped["router"] | {"scorer": {"kind": scorer}},
        "policies": {"default": {"exploration": {"budget": 0.005}}},
    }
    path = folder / "experts.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def probe_table(config: CoeConfig, queries: tuple[LabelledQuery, ...], rng: np.random.Generator) -> OutcomeTable:
    """A few graded prompts of every category."""
    kept: list[LabelledQuery] = []
    for category in config.categories:
        kept += [query for query in queries if query.category == category][:PROBES_PER_CATEGORY]
    scores = (rng.random((len(kept), len(EXPERTS))) < 0.5).astype(np.float32)
    unknown = np.full(scores.shape, np.nan, dtype=np.float32)
    return OutcomeTable(
        prompt_ids=tuple(f"p{i}" for i in range(len(kept))),
        texts=tuple(query.text for query in kept),
        categories=tuple(query.category for query in kept),
        splits=("train",) * len(kept),
        experts=EXPERTS,
        scores=scores,
        cost_usd=unknown,
        output_tokens=unknown,
        latency_ms=unknown,
        metric="right",
        source="synthetic",
    )


def records(
    n: int, queries: tuple[LabelledQuery, ...], categories: tuple[str, ...], keeps_text: bool, rng: np.random.Generator
) -> Iterator[tuple[DecisionRecord, int]]:
    """Records of n decisions, each with the number of the query that it resembles."""
    probs = np.full(len(EXPERTS), EXPLORED / len(EXPERTS))
    favourite = {name: i % len(EXPERTS) for i, name in enumerate(categories)}
    for i in range(n):
        asked = int(rng.integers(len(queries)))
        category = queries[asked].category
        own = probs.copy()
        own[favourite[category]] += 1 - EXPLORED
        expert = int(rng.choice(len(EXPERTS), p=own))
        decision = RoutingDecision(
            expert=EXPERTS[expert],
            category=category,
            confidence=0.9,
            is_fallback=False,
            reason=DecisionReason.MAP if expert == favourite[category] else DecisionReason.EXPLORED,
            likely_category=category,
            uncertainty=0.1,
            eligible=EXPERTS,
            eligible_probs=tuple(own.tolist()),
            predicted_quality=(0.5,) * len(EXPERTS),
            propensity=float(own[expert]),
            router_version="v",
        )
        yield (
            DecisionRecord(
                decision_id=f"{i:032x}",
                request_id=f"r{i}",
                replica="a",
                seq=i,
                at=1.7e9 + i,
                requested_model="auto",
                state=TerminalState.ANSWERED,
                decision=decision,
                served_expert=EXPERTS[expert],
                status=200,
                latency_ms=5.0,
                text=f"{queries[asked].text} ({i})" if keeps_text else None,
            ),
            asked,
        )


def write_log(
    connection: Connection, found: Iterator[tuple[DecisionRecord, int]], vectors: list[bytes], fingerprint: str
) -> None:
    """Rows as the consumer writes them; half of the answers are rated, the favourites up more often."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, object]] = []
    signs: list[dict[str, object]] = []

    def flush() -> None:
        connection.execute(
            text(
                "INSERT INTO decisions (decision_id, at, replica, seq, state, expert, category, router_version, "
                "record, embedding, encoder_fingerprint) VALUES (:i, :at, 'a', :seq, 'answered', :expert, :category, "
                "'v', :record, :embedding, :fingerprint)"
            ),
            rows,
        )
        if signs:
            connection.execute(
                text("INSERT INTO feedback (decision_id, kind, value, at, key_id) VALUES (:i, 'thumb', :value, 0, '')"),
                signs,
            )
        rows.clear()
        signs.clear()

    for record, asked in found:
        assert record.decision is not None
        rows.append(
            {
                "i": record.decision_id,
                "at": record.at,
                "seq": record.seq,
                "expert": record.decision.expert,
                "category": record.decision.category,
                "record": record.model_dump_json(),
                "embedding": vectors[asked],
                "fingerprint": fingerprint,
            }
        )
        if rng.random() < RATED:
            is_up = rng.random() < (0.75 if record.decision.reason is DecisionReason.MAP else 0.5)
            signs.append({"i": record.decision_id, "value": float(is_up)})
        if len(rows) == BATCH_ROWS:
            flush()
    if rows:
        flush()


def run_measured(command: list[str], out: Path) -> Cost:
    """Runs a command to its end, its output in a file."""
    start = time.monotonic()
    with out.open("wb") as file:
        pid = os.posix_spawn(
            command[0], command, dict(os.environ), file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1)]
        )
        _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"`{' '.join(command)}` failed")
    return Cost(time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def prepare_folder(folder: Path, decisions: int, scorer: str, keeps_text: bool) -> list[str]:
    """Writes everything, and gives the command to run."""
    from datetime import UTC, datetime

    rng = np.random.default_rng(0)
    path = write_config(folder, scorer)
    config = load_config(path)
    queries = tuple(query for query in read_seed(seed_folder()) if query.category in config.categories)
    write_outcomes(probe_table(config, queries, rng), folder / "probes")
    registry, now = Registry(folder / "routers"), datetime.now(UTC)
    first = fit_configured(registry.root, TrainRequest(path, folder / "probes"), now=now)
    registry.promote(first.manifest.version, now)
    encoder = build_encoder(config.router.encoder)
    load_router(config, registry.folder(first.manifest.version))  # what is measured must be loadable
    queries = tuple(queries[i] for i in rng.permutation(len(queries))[:ASKED])
    vectors = [to_bytes(vector) for vector in encoder.encode([query.text for query in queries])]
    Database(default_database_url(folder)).close()
    engine = create_engine(default_database_url(folder))
    with engine.begin() as connection:
        found = records(decisions, queries, tuple(config.categories), keeps_text, rng)
        write_log(connection, found, vectors, encoder.fingerprint)
    engine.dispose()
    return [
        *(sys.executable, "-m", "coe", "retrain", "--json"),
        *("--config", str(path), "--data-dir", str(folder), "--outcomes", str(folder / "probes")),
    ]


def main(
    decisions: Annotated[int, typer.Option(min=1000, help="decisions in the log")] = 100_000,
    folder: Annotated[Path | None, typer.Option(help="data folder to write; default: a temporary one")] = None,
    scorer: Annotated[str, typer.Option(help="kind of scorer: map, soft_ridge ...")] = "map",
    texts: Annotated[bool, typer.Option(help="keep texts in the log, or embeddings only")] = True,
) -> None:
    """Measure `coe retrain` and `coe eval log` over a large log."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="coe-scale-") as scratch:
        where = folder or Path(scratch)
        where.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        command = prepare_folder(where, decisions, scorer, texts)
        console.print(f"wrote {decisions} decisions in {time.monotonic() - start:.0f} s", highlight=False)
        for label in ("first run", "second run, labelled queries cached"):
            cost = run_measured(command, where / "retrain.json")
            result = json.loads((where / "retrain.json").read_bytes())
            console.print(
                f"{label}: {cost.wall_s:.1f} s, {cost.cpu_s:.1f} s of processors, peak {cost.peak_mib:.0f} MiB; "
                f"read {result['decisions']}, learned from {result['learned_from']}, held out {result['held_out']}, "
                f"judged on {result['judged_on']}: {result['verdict']}",
                highlight=False,
            )
        report = [sys.executable, "-m", "coe", "eval", "log", "--data-dir", str(where), "--out", str(where / "report")]
        cost = run_measured(report, where / "report.txt")
        console.print(
            f"eval log: {cost.wall_s:.1f} s, {cost.cpu_s:.1f} s of processors, peak {cost.peak_mib:.0f} MiB",
            highlight=False,
        )


if __name__ == "__main__":
    typer.run(main)
