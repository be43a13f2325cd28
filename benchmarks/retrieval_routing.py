"""Adapters for every collection, and what routing between them wins, as one page of results.

    python -m benchmarks.retrieval_routing [--data DIR] [--work DIR] [--out FILE] [--seed N] [--without-adapters]

DIR holds collections in BEIR layout. An adapter is trained for each that has train queries, and one for all of them
together; those under --work are taken as they are (an hour of one core from nothing; needs the `retrieval`
extra). The evaluation of `coe eval retrieval`, with further arms (`benchmarks/retrieval_arms.py`), then takes pilots
from train, settings from dev and figures from test; its report lies under --work. `--without-adapters` measures base
and BM25 alone, and what labelled queries teach of fusing them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from benchmarks.retrieval_arms import MEANING, MULTITASK, FurtherArms, multitask_of
from benchmarks.retrieval_costs import cost_of_adding, latency_ms
from coe.eval.report.page import write_report
from coe.eval.retrieval.arms import Compared, PlainFusions, Situation
from coe.eval.retrieval.retrieval_page import retrieval_page
from coe.eval.retrieval.retrieval_records import RetrievalReport
from coe.eval.retrieval.retrieval_request import RetrievalRequest, requested_experts
from coe.eval.retrieval.retrieval_run import run_retrieval
from coe.retrieval.build_experts import build_experts
from coe.retrieval.training.collection import find_collections, read_collection
from coe.retrieval.training.labels import Labelled
from coe.retrieval.training.searcher import Searcher

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".." / "shared" / "data" / "retrieval"
RESULTS = ROOT / "docs" / "results" / "retrieval.md"
RECIPE = ("--negatives", "corpus", "--precision", "bfloat16")

ARMS = (
    "base",
    "bm25",
    "hybrid",
    "multitask_hybrid",
    "centroid_hybrid",
    "own",
    "coe_single",
    "coe",
    "collection_oracle",
    "query_oracle",
)
TRIED_FIRST = ("rrf", "hybrid", "hybrid_collection", "multitask_hybrid", "data_set", "centroid")
"""What anybody would try first. The page of the report adds `centroid_hybrid`, which fuses by our own rule."""

LEAST_LEAD = 0.02
UNPREPARED = ("base", "bm25", "rrf", "hybrid", "pilot", "coe_single", "coe")

Report = dict[str, Any]


class Costs(NamedTuple):
    """Change of nDCG@10 elsewhere by expert and collection, and medians of one query."""

    added: Mapping[str, Mapping[str, float]]
    latency_ms: Mapping[str, float]


def coe(cache: Path, *arguments: str) -> None:
    """Runs a command, or raises SystemExit with what it said."""
    environment = {**os.environ, "COE_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-m", "coe", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"coe {' '.join(arguments[:3])}: {done.stderr.strip()}")


def train_missing(data: Path, work: Path, cache: Path) -> Iterable[str]:
    """Trains what is not there yet, and yields its name."""
    folders = sorted(path.parent.parent for path in data.glob("*/qrels/train.tsv"))
    if not folders:
        raise SystemExit(f"{data}: holds no collection with qrels/train.tsv; name a folder of them with --data")
    for name, folder in [*((folder.name, folder) for folder in folders), (MULTITASK, data)]:
        out = work / "adapters" / name
        if not (out / "manifest.json").is_file():
            coe(cache, "retrieval", "train", name, "--data", str(folder), "--out", str(out), *RECIPE)
            yield name


def score(arms: Mapping[str, Any], name: str) -> str:
    return f"{arms[name]['ndcg_at_10']:.3f}" if name in arms else ""


def gain(arm: Mapping[str, Any], what: str = "gain") -> str:
    low, high = arm[what]["interval"]
    return f"{arm[what]['mean']:+.3f} ({low:+.3f} to {high:+.3f})"


def row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def arm_lines(report: Report) -> list[str]:
    """Every arm over all collections, and over those that the router was prepared for."""
    titles = ("arm", "what it is", "with train queries", "minus base", "coe minus arm", "all collections", "minus base")
    lines = [row(titles), row(["---"] * len(titles))]
    for name, found in report["mean_prepared"].items():
        everywhere = report["mean"].get(name)
        interval = "{:.3f} to {:.3f}".format(*found["interval"])
        lines.append(
            row(
                (
                    f"**{name}**" if name.startswith("coe") else name,
                    MEANING[name],
                    f"{found['ndcg_at_10']:.3f} ({interval})",
                    gain(found),
                    gain(found, "lead"),
                    f"{everywhere['ndcg_at_10']:.3f}" if everywhere else "",
                    gain(everywhere) if everywhere else "",
                )
            )
        )
    return lines


def bar_lines(report: Report) -> list[str]:
    """The bars that were set, and those that hold."""
    known, unknown = report["mean_prepared"], report["mean_left_out"]["hybrid"]
    best = max((arm for arm in TRIED_FIRST if arm in known), key=lambda arm: known[arm]["ndcg_at_10"])
    left_out = {name: found["left_out"] for name, found in report["collections"].items()}
    worse = [f"{name} {gain(arms['coe'])}" for name, arms in left_out.items() if arms["coe"]["gain"]["interval"][1] < 0]
    found = [
        (f"known collections: `coe` minus `{arm}`", f"at least {LEAST_LEAD}", gain(known[arm], "lead"), is_held)
        for arm in (best, "centroid_hybrid")
        for is_held in (known[arm]["lead"]["mean"] >= LEAST_LEAD,)
    ]
    found += [
        ("unprepared domains: `coe` minus `hybrid`", "at least 0", gain(unknown, "lead"), unknown["lead"]["mean"] >= 0),
        ("unprepared domains surely below base", "none", ", ".join(worse) or "none", not worse),
    ]
    rows = [row((what, bar, measured, "yes" if is_held else "**no**")) for what, bar, measured, is_held in found]
    return [row(("", "bar", "measured", "holds")), row(["---"] * 4), *rows]


def collection_lines(report: Report) -> list[str]:
    shown = [arm for arm in ARMS if any(arm in found["arms"] for found in report["collections"].values())]
    lines = [row(("collection", "n", *shown, "coe minus base")), row(["---"] * (len(shown) + 3))]
    for name, found in report["collections"].items():
        arms = found["arms"]
        lines.append(row((name, found["queries"], *(score(arms, arm) for arm in shown), gain(arms["coe"]))))
    return lines


def unprepared_lines(report: Report) -> list[str]:
    titles = ("collection", *UNPREPARED, "coe minus base", "coe minus hybrid")
    lines = [row(titles), row(["---"] * len(titles))]
    every = {"**mean**": report["mean_left_out"]}
    every |= {name: found["left_out"] for name, found in report["collections"].items()}
    for name, arms in every.items():
        differences = gain(arms["coe"]), gain(arms["hybrid"], "lead")
        lines.append(row((name, *(score(arms, arm) for arm in UNPREPARED), *differences)))
    return lines


def added_lines(added: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [row(("expert", "mean change elsewhere", "worst change", "where")), row(["---"] * 4)]
    for expert, changes in added.items():
        worst = min(changes, key=lambda name: changes[name])
        lines.append(row((expert, f"{mean(changes.values()):+.4f}", f"{changes[worst]:+.4f}", worst)))
    return lines


def page(report: Report, costs: Costs, trained_s: Mapping[str, float], seconds: float) -> str:
    settings = report["settings"]
    alone = not any(name not in ("base", "bm25") for name in report["experts"])
    command = "python -m benchmarks.retrieval_routing" + (" --without-adapters" if alone else "")
    chosen = ", ".join(f"{name} {value}" for name, value in settings.items())
    times = ", ".join(f"{name} {value / 60:.1f}" for name, value in trained_s.items())
    medians = ", ".join(f"{what} {ms:.2f} ms" for what, ms in costs.latency_ms.items())
    return "\n".join(
        [
            "# Base and BM25 without adapters" if alone else "# Routing between retrieval experts",
            "",
            f"Made by `{command}` from [public collections](sources.md).",
            "Scores are nDCG@10 on test queries; differences are paired, with 95% bootstrap intervals over queries. A",
            "quarter of the train queries (all of them without adapters), at most 200 per collection, form the pilot",
            "library; adapters are trained on the others. Settings are chosen on dev queries, and on pilots whose",
            f"collection is treated as unknown ({chosen}).",
            "",
            report["headline"],
            "",
            *bar_lines(report),
            "",
            "The first line names the best of what anybody would try first; `centroid_hybrid` fuses by the plain rule",
            "of `coe` itself.",
            "",
            *arm_lines(report),
            "",
            "## By collection",
            "",
            *collection_lines(report),
            "",
            "## Unprepared domains",
            "",
            "Each collection in turn, without its labelled queries and without the adapter trained on it.",
            "",
            *unprepared_lines(report),
            "",
            "## Adding an expert",
            "",
            "The effect of knowing an expert on `coe`, on the collections that are not its own.",
            "",
            *added_lines(costs.added),
            "",
            "## Where it loses with labelled queries",
            "",
            *(f"- {sentence}" for sentence in report["losses"] or ("Nowhere beyond chance.",)),
            "",
            "## Time",
            "",
            f"Medians for one query at a time: {medians}.",
            f"Adapters trained in this run, minutes: {times or 'none'}. The rest took {seconds / 60:.0f} minutes.",
            "",
        ]
    )


def measure(data: Path, adapters: list[Path], out: Path, cache: Path, seed: int) -> tuple[RetrievalReport, Costs]:
    """The report with all arms, and what routing costs; the multi-task adapter is compared with and never routed to."""
    alone = [each for each in adapters if each.name == MULTITASK]
    routed = [each for each in adapters if each.name != MULTITASK]
    request = RetrievalRequest(
        data=data, out=out, experts=routed or None, cache=cache, command="benchmarks/retrieval_routing.py", seed=seed
    )
    collections = [read_collection(folder) for folder in find_collections(data)]
    experts = build_experts(*requested_experts(alone)) if alone else {}
    with_tests = [each for each in collections if alone and len(each.split("test"))]
    found = {each.name: multitask_of(Searcher(each, experts, cache)) for each in with_tests}
    trained = frozenset(each.name for each in collections if len(each.split("train")))
    further, tests = FurtherArms(found, trained), dict[str, Labelled]()

    def compare(test: Labelled, situation: Situation, plain: PlainFusions | None) -> Compared:
        tests[test.collection] = test
        return further(test, situation, plain)

    report, library = run_retrieval(request, now=datetime.now(UTC), progress=lambda _: None, compare=compare)
    write_report(report, retrieval_page(report), out)
    served = build_experts(*requested_experts(routed))
    searchers = [Searcher(each, served, cache) for each in collections if each.name in tests]
    added = cost_of_adding(list(tests.values()), library, report.experts)
    return report, Costs(added, latency_ms(served, library, searchers))


def main(
    data: Annotated[Path, typer.Option(help="folder of collections")] = DATA,
    work: Annotated[Path, typer.Option(help="folder for adapters, embeddings and the report")] = ROOT
    / "data"
    / "retrieval-results",
    out: Annotated[Path, typer.Option(help="page to write")] = RESULTS,
    seed: Annotated[int, typer.Option(help="of every random draw of the evaluation")] = 0,
    without_adapters: Annotated[bool, typer.Option("--without-adapters", help="base and BM25 alone")] = False,
) -> None:
    """Reproduce the retrieval results."""
    console, began_s = Console(stderr=True), time.monotonic()
    cache, trained_s = work / "embeddings", {}
    for name in () if without_adapters else train_missing(data, work, cache):
        trained_s[name] = time.monotonic() - began_s
        console.print(f"{trained_s[name]:5.0f} s  trained {name}", markup=False)
        began_s = time.monotonic()
    adapters = [] if without_adapters else sorted(each for each in (work / "adapters").iterdir() if each.is_dir())
    measured, costs = measure(data, adapters, work / "report", cache, seed)
    report: Report = measured.model_dump(mode="json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(report, costs, trained_s, time.monotonic() - began_s), encoding="utf-8")
    console.print(f"{report['headline']}\nwrote {out}", markup=False)


if __name__ == "__main__":
    typer.run(main)
