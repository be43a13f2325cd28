"""Costs of maps of many experts and of many graded outcomes, each in its own process; writes docs/results/scale.md.

    nice -n 10 python -m benchmarks.scale [--experts 100,1000,10000] [--outcomes 100000,1000000] [--page FILE]

Experts are synthetic: each has a mean score of its own, and is good at one of the 16 categories of the shipped
composition. The encoder is `hashing`, so that the figures are those of the map and not of an encoder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from rich.console import Console

from coe.base.shipped import seed_folder
from coe.router.build import load_router
from coe.router.config.composition import CoeConfig, parse_config
from coe.router.model_files.artifact import load_artifact
from coe.router.types import Query, QueryFacts
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.datasets.outcomes import read_outcomes
from coe.training.expert_map import measure_quality
from coe.training.fit_inputs import TrainRequest, fit_configured, read_seed
from coe.training.types import OutcomeTable

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "scale.md"
PROMPTS = 180
DECISIONS = 200
BUDGET_B, HOSTED_B = 8.0, 40.0
MOST_HOSTED = 1000
"""Experts of a map for which a limit on what is hosted is solved: ten thousand were not solved in 40 s of a core."""

WIDE = 1000
"""Experts of a table of many outcomes."""

SPECIALIST, SPREAD = 0.25, 0.1

console = Console(highlight=False)


@dataclass
class Found:
    """Figures of one process, by name: seconds, milliseconds, MiB."""

    size: int
    figures: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Processor seconds of a step, and what it added to the largest memory so far."""
        before, began = peak_mib(), time.process_time()
        yield
        self.figures[f"{name} s"] = time.process_time() - began
        self.figures[f"{name} MiB"] = peak_mib() - before


def peak_mib() -> float:
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024


def values_of(m: int, budgets: dict[str, float]) -> dict[str, Any]:
    """experts.yaml of m experts of 1 to 70 billion parameters on ten bases."""
    shipped = yaml.safe_load((ROOT / "experts.yaml").read_text(encoding="utf-8"))
    experts = {f"e{n}": {"engine": "echo", "model": f"base-{n % 10}", "params_b": float(1 + n % 70)} for n in range(m)}
    return {
        "categories": shipped["categories"],
        "experts": experts,
        "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}, "alpha": 0.1},
        "policies": {"default": {"budgets": budgets}},
    }


def table_of(p: int, m: int, categories: tuple[str, ...]) -> OutcomeTable:
    """Scores of m experts on p prompts, 0 or 1."""
    rng = np.random.default_rng(0)
    queries = [query for query in read_seed(seed_folder()) if query.category in categories]
    asked = [queries[i] for i in np.resize(rng.permutation(len(queries)), p)]
    number = np.array([categories.index(query.category) for query in asked])
    mean = np.clip(rng.normal(0.5, SPREAD, m), 0.05, 0.7)
    chance = mean[None, :] + SPECIALIST * (number[:, None] == np.arange(m)[None, :] % len(categories))
    scores = (rng.random((p, m), dtype=np.float32) < chance).astype(np.float32)
    unknown = np.full(scores.shape, np.nan, dtype=np.float32)
    return OutcomeTable(
        prompt_ids=tuple(f"p{i}" for i in range(p)),
        texts=tuple(f"{query.text} ({i})" for i, query in enumerate(asked)),
        categories=tuple(query.category for query in asked),
        splits=("train",) * p,
        experts=tuple(f"e{n}" for n in range(m)),
        scores=scores,
        cost_usd=unknown,
        output_tokens=unknown,
        latency_ms=unknown,
        metric="right",
        source="synthetic",
    )


def experts_cost(m: int) -> Found:
    """A map of m experts: read, fitted, loaded with a policy that has a budget and one that has none, and asked."""
    found = Found(m)
    with tempfile.TemporaryDirectory(prefix="coe-scale-") as name:
        folder = Path(name)
        plain, bound, hosted = {}, {"active_params_b": BUDGET_B}, {"hosted_params_b": HOSTED_B}
        path = folder / "experts.yaml"
        path.write_text(yaml.safe_dump(values_of(m, plain)), encoding="utf-8")
        with found.timed("read"):
            config = parse_config(values_of(m, plain))
        write_outcomes(table_of(PROMPTS, m, tuple(config.categories)), folder / "probes")
        with found.timed("fit"):
            made = fit_configured(folder / "routers", TrainRequest(path, folder / "probes"), now=datetime.now(UTC))
        router_folder = folder / "routers" / made.manifest.version
        found.figures["artifact MiB"] = sum(f.stat().st_size for f in router_folder.iterdir()) / 2**20
        assert len(load_artifact(router_folder).manifest.experts) == m
        with found.timed("solve"):
            ask(found, "decide", config, router_folder)
        with found.timed("solve budget"):
            ask(found, "decide budget", parse_config(values_of(m, bound)), router_folder)
        if m <= MOST_HOSTED:
            with found.timed("solve hosted"):
                ask(found, "decide hosted", parse_config(values_of(m, hosted)), router_folder)
    return found


def ask(found: Found, name: str, config: CoeConfig, folder: Path) -> None:
    """Loads the router, which solves its policy, and times decisions: the first of each category, and later ones."""
    router = load_router(config, folder)
    queries = [query.text for query in read_seed(seed_folder())][: 16 * DECISIONS : 16]
    rng = np.random.default_rng(0)

    def decide_ms(text: str) -> float:
        began = time.process_time()
        router.decide(Query(id="q", text=text, facts=QueryFacts(prompt_chars=len(text))), policy="default", rng=rng)
        return 1000 * (time.process_time() - began)

    first = [decide_ms(text) for text in queries]
    found.figures[f"{name} ms"] = float(np.median([decide_ms(text) for text in queries]))
    found.figures[f"{name} first ms"] = max(first)


def outcomes_cost(n: int) -> Found:
    """n graded outcomes of `WIDE` experts: written, read, and made into the matrix of the map."""
    found = Found(n)
    categories = tuple(parse_config(values_of(1, {})).categories)
    with tempfile.TemporaryDirectory(prefix="coe-scale-") as name:
        table = table_of(max(1, n // WIDE), WIDE, categories)
        with found.timed("write"):
            write_outcomes(table, Path(name))
        del table
        found.figures["file MiB"] = sum(f.stat().st_size for f in Path(name).iterdir()) / 2**20
        with found.timed("read"):
            again = read_outcomes(Path(name))
        with found.timed("measure"):
            measure_quality(again, tuple(c for c in categories if c != "general"))
        found.figures["peak MiB"] = peak_mib()
    return found


KINDS: dict[str, Callable[[int], Found]] = {"experts": experts_cost, "outcomes": outcomes_cost}


def measured(kind: str, size: int) -> Found | None:
    """The figures of a process of its own; None where it does not end well, which is said."""
    command = [sys.executable, "-m", "benchmarks.scale", "--one", f"{kind}={size}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode != 0:
        console.print(f"{kind} {size}: ended with status {done.returncode}")
        return None
    found = Found(**json.loads(done.stdout))
    console.print(f"{kind} {size}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.figures.items()))
    return found


def power(rows: list[Found], name: str) -> float:
    """The exponent b of a * size**b through the last two sizes that were measured; nan where it grows from nothing."""
    (n0, y0), (n1, y1) = [(row.size, row.figures[name]) for row in rows if name in row.figures][-2:]
    return float(np.log(y1 / y0) / np.log(n1 / n0)) if min(y0, y1) > 0 else float("nan")


def ahead(rows: list[Found], name: str, size: int) -> float:
    """The value at another size on the line through the last two: the fixed part does not grow."""
    (n0, y0), (n1, y1) = [(row.size, row.figures[name]) for row in rows if name in row.figures][-2:]
    return y1 + (y1 - y0) / (n1 - n0) * (size - n1)


def rows_of(found: list[Found], names: dict[str, str], wanted: int | None = None) -> list[str]:
    """A table: a row for each figure, a column for each size, the exponent, and perhaps a size by the formula."""
    sizes = [f"{row.size:,}" for row in found] + ([f"{wanted:,} by the line"] if wanted else [])
    lines = [f"| | {' | '.join(sizes)} | exponent |", "| --- |" + " --- |" * (len(sizes) + 1)]
    for name, label in names.items():
        b = power(found, name)
        cells = [f"{row.figures[name]:,.3g}" if name in row.figures else "not measured" for row in found]
        cells += [f"{ahead(found, name, wanted):,.3g}"] if wanted else []
        lines.append(f"| {label} | {' | '.join(cells)} | {'' if np.isnan(b) else f'{b:.2f}'} |")
    return lines


OF_EXPERTS = {
    "read s": "experts.yaml checked, s",
    "fit s": "router fitted (180 prompts graded by all), s",
    "fit MiB": "memory that the fit adds, MiB",
    "artifact MiB": "router on disk, MiB",
    "solve s": "router loaded and 400 decisions, s",
    "solve MiB": "memory that it adds to the fit's, MiB",
    "solve budget s": "the same with a budget, s",
    "solve budget MiB": "memory that the budget adds, MiB",
    "solve hosted s": "the same with a limit on hosted parameters, s",
    "decide ms": "decision, ms (median)",
    "decide first ms": "slowest of the first 200 decisions, ms",
    "decide budget ms": "decision with a budget, ms (median)",
}
OF_OUTCOMES = {
    "write s": "written as Parquet, s",
    "file MiB": "on disk, MiB",
    "read s": "read, s",
    "measure s": "made into the quality matrix, s",
    "peak MiB": "largest memory of the process, MiB",
}


def main(
    experts: Annotated[str, typer.Option(help="sizes of maps")] = "100,1000,10000",
    outcomes: Annotated[str, typer.Option(help="numbers of graded outcomes")] = "100000,1000000,10000000",
    wanted: Annotated[int, typer.Option(help="outcomes to extrapolate to")] = 100_000_000,
    page: Annotated[Path | None, typer.Option(help="page to write")] = None,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure every size in a process of its own."""
    if one is not None:
        kind, _, size = one.partition("=")
        sys.stdout.write(json.dumps(asdict(KINDS[kind](int(size)))))
        return
    maps = [each for size in experts.split(",") if (each := measured("experts", int(size))) is not None]
    tables = [each for size in outcomes.split(",") if (each := measured("outcomes", int(size))) is not None]
    if page is not None:
        text = (Path(__file__).parent / "scale_page.md").read_text(encoding="utf-8")
        text = text.replace("{experts}", "\n".join(rows_of(maps, OF_EXPERTS)))
        text = text.replace("{outcomes}", "\n".join(rows_of(tables, OF_OUTCOMES, wanted)))
        page.write_text(text.replace("{day}", f"{datetime.now(UTC):%Y-%m-%d}"), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
