"""Every named table and every cheap/strong pair, by `coe eval routing`, as one page of results.

    python -m benchmarks.routing [--tables FILE] [--only NAME ...] [--work DIR] [--out FILE] [--seed N] [--workers N]

Each table is fitted on its train and valid prompts and reported on its test prompts, and once more on all prompts in
five parts that were each decided by a router fitted on the others; in a process of its own, two of them at a time. The
embeddings are kept by content under --work, so a second run encodes nothing. The reports lie under --work as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from benchmarks.outcome_tables import write_chosen

ROOT = Path(__file__).parent.parent
TABLES = ROOT / ".." / "shared" / "data" / "routing" / "TABLES.yaml"
RESULTS = ROOT / "docs" / "results" / "routing.md"
CLOSING = ("routerdc_7", "fasteval_8", "bbh_4", "ollb_4", "ollb_small_5", "mmlu_pro_small_6")
"""Tables whose mean closed gap is quoted."""

EXTRA: Mapping[str, tuple[Mapping[str, str], ...]] = {
    "zeroeval_coe5": ({"budget": "active_params_b=31.1"}, {"budget": "active_params_b=62"}),
    "m_ifeval_17": ({"category": "language"},),
}
"""More runs of a table: budgets, and the labels that a table of one category is mapped by."""

CPT_WORDS = (
    "CPT is the smallest share of strong calls that closes 50% or 80% of the gap between the two experts, APGR the",
    "mean share of that gap over all shares of strong calls; a coin has 50%, 80% and 0.5. The reference is the best",
    "simple router measured before. The map has one gain per category, so it spends its calls within one at random.",
)

Report = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A named run: its table and what is chosen of it, arguments of `coe eval routing`, and the reference figures of
    the file of tables."""

    name: str
    source: Path
    chosen: Mapping[str, str]
    arguments: tuple[str, ...]
    reference: Mapping[str, Any]


def runs_of(tables: Path) -> list[Run]:
    """Named tables with their extra runs, then pairs."""
    entries = yaml.safe_load(tables.read_text(encoding="utf-8"))
    found = []
    for name, entry in entries.items():
        if name == "pairs":
            continue
        for extra in ({}, *EXTRA.get(name, ())):
            label = " ".join((name, *extra.values()))
            found.append(run_of(label, tables.parent, {**entry, **extra}, ("--folds", "5")))
    for pair in entries.get("pairs", []):
        label = f"pair {pair['source']} {pair.get('benchmark', '')}".strip()
        found.append(run_of(label, tables.parent, {**pair, "experts": (pair["weak"], pair["strong"]), "figures": pair}))
    return found


def run_of(label: str, folder: Path, entry: Mapping[str, Any], more: Sequence[str] = ()) -> Run:
    """The run of an entry whose table lies below a folder."""
    chosen = {key: str(entry[key]) for key in ("benchmark", "metric", "category") if key in entry}
    experts = ("--experts", ",".join(entry["experts"])) if "experts" in entry else ()
    budget = ("--budget", entry["budget"]) if "budget" in entry else ()
    return Run(label, folder / entry["source"], chosen, (*experts, *budget, *more), entry.get("figures", {}))


def measure(run: Run, work: Path, seed: int) -> Report:
    """Runs the command, or raises SystemExit with what it said."""
    name = run.name.replace(" ", "_").replace("=", "-")
    out, table = work / name, write_chosen(run.source, work / "tables" / name, **run.chosen)
    cache = str(work / "embeddings")
    of_pair, of_table = ("benchmarks.cheap_strong", "--cache", cache), ("coe", "eval", "routing", "--out", str(out))
    module = of_pair if "cpt" in run.reference else of_table
    command = [sys.executable, "-m", *module, "--outcomes", str(table), *run.arguments, "--seed", str(seed)]
    done = subprocess.run(
        command, env={**os.environ, "COE_CACHE_DIR": cache}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{run.name}: {done.stderr.strip()}")
    report: Report = json.loads(done.stdout if module is of_pair else (out / "report.json").read_bytes())
    return report


def mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


def points(value: float) -> str:
    return f"{100 * value:.1f}"


def difference(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{100 * found['mean']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def table_lines(reports: Mapping[str, Report]) -> list[str]:
    """The headline table."""
    lines = [
        "| table | n | best single | map on true labels | k-NN | ours (kind) | against the map on true labels "
        "| against k-NN | against best single | against best single in hindsight | gap closed | oracle |",
        "| --- " * 12 + "|",
    ]
    for name, report in reports.items():
        arms, own = report["arms"], report["arms"]["coe"]
        cells = [
            name,
            report["data"]["n_test"],
            points(arms["best_single"]["mean_score"]),
            points(arms["map_true"]["mean_score"]),
            points(arms["knn"]["mean_score"]),
            f"**{points(arms['coe']['mean_score'])}** ({report['data']['method']})",
            difference(own["gain"]["map_true"]),
            difference(own["gain"]["knn"]),
            difference(own["gain"]["best_single"]),
            difference(own["gain"]["best_single_hindsight"]),
            "" if own["gap_closed"] is None else f"{100 * own['gap_closed']['mean']:.0f}%",
            points(arms["query_oracle"]["mean_score"]),
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def out_of_fold_lines(reports: Mapping[str, Report]) -> list[str]:
    """All prompts, each decided by a router that was fitted without it."""
    lines = [
        "| table | n | best single of the other parts | in hindsight | ours | over the former | over the latter "
        "| gap closed from the latter | limit used |",
        "| --- " * 9 + "|",
    ]
    for name, report in reports.items():
        found = report["out_of_fold"]
        cells = [
            name,
            found["n"],
            points(found["best_single"]),
            f"{points(found['best_single_hindsight'])} ({found['hindsight']})",
            f"**{points(found['coe'])}**",
            difference(found["over_best_single"]),
            difference(found["over_hindsight"]),
            share_closed(found),
            " ".join(f"{100 * used:.0f}%" for used in found["used"]),
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def share_closed(found: Mapping[str, Any]) -> str:
    return "" if found["gap_closed"] is None else share_cell(found["gap_closed"], 1)


def share_cell(found: Mapping[str, Any], digits: int) -> str:
    low, high = found["interval"]
    return f"{100 * found['mean']:.{digits}f}% ({100 * low:.{digits}f} to {100 * high:.{digits}f})"


def method_lines(reports: Mapping[str, Report]) -> list[str]:
    """Share of the gap closed by every kind."""
    kinds = sorted({kind for report in reports.values() for kind in report["methods"]})
    lines = ["| table | " + " | ".join(kinds) + " |", "| --- " * (len(kinds) + 1) + "|"]
    columns: dict[str, list[float]] = {kind: [] for kind in kinds}
    for name, report in reports.items():
        cells = []
        for kind in kinds:
            share = report["methods"][kind]["gap_closed"]
            cells.append("" if share is None else f"{100 * share['mean']:.1f}")
            if name in CLOSING and share is not None:
                columns[kind].append(share["mean"])
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    means = [f"**{100 * mean(values):.1f}**" if values else "" for values in columns.values()]
    lines.append("| mean of the first six | " + " | ".join(means) + " |")
    return lines


def pair_lines(reports: Mapping[str, Report], runs: Sequence[Run]) -> list[str]:
    """APGR and the share of strong calls that closes 50% and 80% of the gap, by every kind."""
    reference = {run.name: run.reference for run in runs}
    lines = ["| pair | n | order | APGR | CPT(50) | CPT(80) | reference CPT |", "| --- " * 7 + "|"]
    for name, report in reports.items():
        wanted = " / ".join(f"{value}%" for value in reference[name]["cpt"])
        for kind, order in report["orders"].items():
            cells = [name, report["n_test"], kind, *order_cells(order), wanted]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def order_cells(order: Mapping[str, Any]) -> list[str]:
    """APGR, CPT(50) and CPT(80) with their intervals."""
    low, high = order["apgr"]["interval"]
    shares = [order["cpt"].get(level) for level in ("50", "80")]
    cells = ["not reached" if share is None else share_cell(share, 0) for share in shares]
    return [f"{order['apgr']['mean']:.3f} ({low:.3f} to {high:.3f})", *cells]


def mixture_lines(reports: Mapping[str, Report]) -> list[str]:
    """Runs under a budget against the best fixed mixture of experts that keeps it; none without such a run."""
    under = {name: report for name, report in reports.items() if "best_mixture" in report["arms"]}
    if not under:
        return []
    lines = ["| run | ours | best fixed mixture | difference |", "| --- " * 4 + "|"]
    for name, report in under.items():
        ours, mixture = (points(report["arms"][arm]["mean_score"]) for arm in ("coe", "best_mixture"))
        lines.append(f"| {name} | {ours} | {mixture} | {difference(report['arms']['coe']['gain']['best_mixture'])} |")
    return ["", "Within a budget, against the best random mixture of two experts:", "", *lines]


def frontier_lines(report: Report) -> list[str]:
    """Quality against mean active parameters."""
    curves = report["frontier"]["active_params_b"]
    names = ["coe", "best_mixture"]
    lines = ["| budget (B) | " + " | ".join(f"{name} | used" for name in names) + " |"]
    lines.append("| --- " * (2 * len(names) + 1) + "|")
    for i, point in enumerate(curves[names[0]]):
        cells = [f"{points(curves[name][i]['mean_score'])} | {curves[name][i]['amount']:.1f}" for name in names]
        lines.append(f"| {point['budget']:.1f} | " + " | ".join(cells) + " |")
    return lines


def page(reports: Mapping[str, Report], runs: Sequence[Run]) -> str:
    tables = {name: report for name, report in reports.items() if not name.startswith("pair ")}
    pairs = {name: report for name, report in reports.items() if name.startswith("pair ")}
    closed = [tables[name]["arms"]["coe"]["gap_closed"]["mean"] for name in CLOSING if name in tables]
    unseen = [tables[name]["out_of_fold"]["gap_closed"]["mean"] for name in CLOSING if name in tables]
    lines = [
        "# Routing on public outcome tables",
        "",
        "Made by `python -m benchmarks.routing`. Every run is a `coe eval routing`, whose HTML report has charts and",
        "intervals. Scores are in percent; differences are in points, paired, with 95% bootstrap intervals. `ours` is",
        "the default, the map. The tables come from [public sources](sources.md).",
        "",
        "The share of the gap to the per-query oracle that is closed, mean of the first six tables: "
        f"**{100 * mean(closed):.1f}%** on",
        "the test prompts, from the single expert that is best on the fit prompts; "
        f"**{100 * mean(unseen):.1f}%** on all prompts out of fold,",
        "from the best single expert in hindsight.",
        "",
        "## All prompts, out of fold",
        "",
        "Train, valid and test prompts in five parts, each decided by a router that was fitted on the other four. Best",
        "single: the best of those four, or of all in hindsight, both within the budget. So a router has four fifths",
        "of the prompts graded by every expert: 15,700 on routerdc_7. Fewer give less ([first-map.md](first-map.md)).",
        "",
        *out_of_fold_lines(tables),
        "",
        "## Test prompts",
        "",
        "Routers are fitted on train and valid prompts. k-NN and the oracle are shown without a budget even where a",
        "run has one. The best single expert in hindsight is that of the test prompts.",
        "",
        *table_lines(tables),
        *mixture_lines(tables),
        "",
        "## Share of the gap closed by every kind, percent",
        "",
        *method_lines(tables),
    ]
    if pairs:
        lines += ["", "## Cheap and strong", "", *CPT_WORDS, "", *pair_lines(pairs, runs)]
    if "zeroeval_coe5" in tables:
        lines += ["", "## Five experts of zeroeval: quality against mean active parameters", ""]
        lines += frontier_lines(tables["zeroeval_coe5"])
    return "\n".join(lines) + "\n"


def main(
    tables: Annotated[Path, typer.Option(help="file of named tables; their sources lie beside it")] = TABLES,
    only: Annotated[list[str] | None, typer.Option(help="names of runs to make; default: all")] = None,
    work: Annotated[Path, typer.Option(help="folder for reports and embeddings")] = ROOT / "data" / "routing-results",
    out: Annotated[Path, typer.Option(help="page to write")] = RESULTS,
    seed: Annotated[int, typer.Option(help="of every random draw")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="tables at a time; one keeps about one core busy")] = 2,
) -> None:
    """Reproduce the routing results."""
    if not tables.is_file():
        raise SystemExit(f"{tables}: no such file of tables; name one with --tables")
    start, console = time.monotonic(), Console(stderr=True)
    runs = [run for run in runs_of(tables) if not only or run.name in only]
    reports: dict[str, Report] = {}
    with ThreadPoolExecutor(workers) as pool:
        for run, report in zip(runs, pool.map(partial(measure, work=work, seed=seed), runs), strict=True):
            reports[run.name] = report
            console.print(
                f"{time.monotonic() - start:5.0f} s  {run.name}: {report.get('headline', 'done')}", markup=False
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(reports, runs), encoding="utf-8")
    console.print(f"wrote {out}", markup=False)


if __name__ == "__main__":
    typer.run(main)
