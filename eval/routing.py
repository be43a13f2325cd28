"""`coe eval routing`: what routing won on an outcome table. Nothing is fitted here: `coe train` fits, in a process of
its own and on fit rows only, and its artifact is measured on test rows."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import orjson

from eval.compare import (
    Trial,
    arm_records,
    arm_scores,
    category_rows,
    choices,
    closed,
    costs,
    expert_rows,
    gains,
    mean_costs,
    regret_record,
    stage_one_record,
)
from eval.metrics.bootstrap import bootstrap_means
from eval.report.schema import DataFacts, Report
from eval.report.words import headline
from eval.trial_tables import RoutingRequest, Tables, fingerprint, read_tables, require_amounts
from router.build import load_table_router
from router.config import Budgets
from router.errors import RouterError
from router.pipeline import Router
from router.types import FloatArray, Query, QueryBatch, QueryFacts
from training.datasets.outcomes import write_outcomes
from training.types import OutcomeTable

Progress = Callable[[str], None]
ENCODE_BATCH = 64


def train(fit: OutcomeTable, request: RoutingRequest, routers: Path) -> Path:
    """Runs `coe train --table` on the fit rows in a process of its own and returns the artifact's folder.

    Raises:
        RouterError: training failed; the message is the command's own.
    """
    with tempfile.TemporaryDirectory() as scratch:
        write_outcomes(fit, Path(scratch))
        arguments = ["train", "--table", "--outcomes", scratch, "--out", str(routers), "--seed", str(request.seed)]
        arguments += ["--encoder", request.encoder, "--classifier", request.classifier]
        done = subprocess.run(  # a fixed command line of our own, no shell
            [sys.executable, "-m", "router.cli", *arguments], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise RouterError(f"coe train failed: {said[-1].removeprefix('coe: ') if said else done.returncode}")
    return routers / str(orjson.loads((routers / "live.json").read_bytes())["version"])


def load(folder: Path, table: OutcomeTable, budgets: Budgets) -> Router:
    """The trained router under the budgets. Raises InfeasibleBudgetError, ArtifactError."""
    prices = {e: float(cost) for e, cost in zip(table.experts, mean_costs(table), strict=True) if not np.isnan(cost)}
    return load_table_router(folder, budgets=budgets, active_params_b=table.active_params_b, cost_usd=prices)


def encode(router: Router, texts: Sequence[str], progress: Progress, what: str) -> FloatArray:
    """(n, d) vectors."""
    parts = []
    for start in range(0, len(texts), ENCODE_BATCH):
        progress(f"encoding {what} queries: {start} of {len(texts)}")
        parts.append(router.encoder.encode(texts[start : start + ENCODE_BATCH]))
    return np.concatenate(parts)


def run_trial(tables: Tables, router: Router, budgets: Budgets, rng: np.random.Generator, progress: Progress) -> Trial:
    """Decides every test query."""
    test = tables.test
    vectors = encode(router, test.texts, progress, "test")
    queries = tuple(
        Query(id=prompt_id, text=text, facts=QueryFacts(prompt_chars=len(text)))
        for prompt_id, text in zip(test.prompt_ids, test.texts, strict=True)
    )
    return Trial(
        fit=tables.fit,
        test=test,
        fit_embeddings=encode(router, tables.fit.texts, progress, "fit"),
        test_embeddings=vectors,
        decisions=router.decide_batch(QueryBatch(queries, vectors), rng=rng),
        expert_of=router.expert_of("default"),
        budgets=budgets,
    )


def measure(
    trial: Trial, request: RoutingRequest, facts: DataFacts, *, rng: np.random.Generator, now: datetime
) -> Report:
    """The report of a trial."""
    arms = choices(trial)
    scores = arm_scores(trial.test, arms)
    means, draws = scores.mean(axis=0), bootstrap_means(scores, rng)
    records, gain = arm_records(trial.test, arms, means, draws), gains(arms, means, draws)
    share, share_interval = closed(arms, means, draws)
    return Report(
        headline=headline(records, gain, share, facts.n_test, len(facts.experts)),
        command=request.command,
        seed=request.seed,
        created_at=now.isoformat(timespec="seconds"),
        data=facts,
        arms=records,
        gain=gain,
        gap_closed=share,
        gap_closed_interval=share_interval,
        regret=regret_record(trial, rng),
        stage_one=stage_one_record(trial),
        experts=expert_rows(trial, rng),
        categories=category_rows(trial, arms, scores),
    )


def data_facts(request: RoutingRequest, tables: Tables, router_version: str) -> DataFacts:
    test = tables.test
    is_known = bool(np.isfinite(costs(test)).all())
    return DataFacts(
        source=test.source if request.benchmark is None else f"{test.source}, benchmark {request.benchmark}",
        metric=test.metric,
        category_column=request.category_column,
        experts=test.experts,
        n_fit=len(tables.fit.prompt_ids),
        n_test=len(test.prompt_ids),
        splits=dict(tables.splits),
        n_overlap_removed=tables.n_overlap_removed,
        n_incomplete_removed=tables.n_incomplete,
        fingerprints={"fit": fingerprint(tables.fit), "test": fingerprint(test)},
        cost="unknown" if not is_known else "estimated" if test.is_cost_estimated else "recorded",
        budgets=request.budgets.model_dump(exclude_none=True),
        encoder=request.encoder,
        router_version=router_version,
    )


def run_routing(request: RoutingRequest, *, now: datetime, progress: Progress) -> Report:
    """Fits on the fit rows, decides the test rows, measures. Writes the trained router under `request.out`.

    Raises:
        DataError, ConfigError, InfeasibleBudgetError, RouterError: with the offending value.
    """
    progress("reading outcomes")
    tables = read_tables(request)
    require_amounts(tables.fit, request.budgets)
    progress(f"training on {len(tables.fit.prompt_ids)} queries")
    folder = train(tables.fit, request, request.out / "routers")
    router = load(folder, tables.fit, request.budgets)
    decide_rng, measure_rng = np.random.default_rng(request.seed).spawn(2)
    trial = run_trial(tables, router, request.budgets, decide_rng, progress)
    progress("measuring")
    return measure(trial, request, data_facts(request, tables, router.version), rng=measure_rng, now=now)


def command_line(arguments: Sequence[str]) -> str:
    """The command to repeat a run, ready for a shell."""
    return shlex.join(["coe", *arguments])
