"""An expert for every collection, and what routing between them wins, as one page of results.

    python -m benchmarks.retrieval_routing [--data DIR] [--work DIR] [--out FILE] [--seed N] [--without-trained]

DIR holds collections in BEIR layout. An expert is trained for each that has train queries, and one for all of them
together; those under --work are taken as they are (an hour of one core from nothing; needs the `retrieval`
extra). `benchmarks/retrieval_eval`, with further arms (`benchmarks/retrieval_arms.py`), then takes pilots from train,
settings from dev and figures from test; its report lies under --work. `--without-trained` measures base and BM25
alone, and what labelled queries teach of fusing them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import typer
import yaml
from rich.console import Console

from benchmarks.retrieval_arms import MEANING, MULTITASK, FurtherArms, multitask_of
from benchmarks.retrieval_costs import cost_of_adding, latency_ms
from benchmarks.retrieval_eval.arms import Compared, PlainFusions, Situation
from benchmarks.retrieval_eval.page import retrieval_page
from benchmarks.retrieval_eval.records import RetrievalReport
from benchmarks.retrieval_eval.request import RetrievalRequest, requested_experts
from benchmarks.retrieval_eval.run import run_retrieval
from coe.eval.report.page import write_report
from coe.retrieval.build_experts import build_experts
from coe.retrieval.experts.trained import MANIFEST_FILE
from coe.retrieval.training.collection import find_collections, read_collection
from coe.retrieval.training.labels import Labelled
from coe.retrieval.training.searcher import Searcher

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".." / "shared" / "data" / "retrieval"
RESULTS = ROOT / "docs" / "results" / "retrieval.md"
BASE = {"kind": "bert"}

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


def config_of(file: Path, trained: Iterable[Path]) -> Path:
    """The project's experts.yaml with the base and these experts."""
    values = yaml.safe_load((ROOT / "experts.yaml").read_text())
    experts = {folder.name: {"kind": "trained", "path": str(folder.absolute())} for folder in trained}
    values["retrieval"] = {"encoder": BASE, "experts": experts}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def train_missing(data: Path, work: Path, cache: Path) -> Iterable[str]:
    """Trains what is not there yet, and yields its name."""
    folders = sorted(path.parent.parent for path in data.glob("*/qrels/train.tsv"))
    if not folders:
        raise SystemExit(f"{data}: holds no collection with qrels/train.tsv; name a folder of them with --data")
    config = config_of(work / "base.yaml", ())
    for name, folder in [*((folder.name, folder) for folder in folders), (MULTITASK, work / "together")]:
        out = work / "trained" / name
        if not (out / MANIFEST_FILE).is_file():
            if name == MULTITASK:
                join_collections(folders, folder)
            coe(cache, "--config", str(config), "retrieval", "train", name, "--data", str(folder), "--out", str(out))
            yield name


def join_collections(folders: Iterable[Path], out: Path) -> None:
    """One collection of several, whose ids begin with their names."""
    (out / "qrels").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        corpus, asked = (stack.enter_context((out / f"{part}.jsonl").open("w")) for part in ("corpus", "queries"))
        judged = {split: stack.enter_context((out / "qrels" / f"{split}.tsv").open("w")) for split in ("train", "dev")}
        for file in judged.values():
            file.write("query-id\tcorpus-id\tscore\n")
        for collection in map(read_collection, folders):
            ids = [f"{collection.name}-{each}" for each in collection.document_ids]
            for document, text in zip(ids, collection.documents, strict=True):
                corpus.write(json.dumps({"_id": document, "text": text}) + "\n")
            for split, file in judged.items():
                queries = collection.split(split)
                for name, text, grades in zip(queries.ids, queries.texts, queries.grades, strict=True):
                    query = f"{collection.name}-{split}-{name}"
                    asked.write(json.dumps({"_id": query, "text": text}) + "\n")
                    file.writelines(f"{query}\t{ids[row]}\t{grade}\n" for row, grade in grades.items())


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
    command = "python -m benchmarks.retrieval_routing" + (" --without-trained" if alone else "")
    chosen = ", ".join(f"{name} {value}" for name, value in settings.items())
    times = ", ".join(f"{name} {value / 60:.1f}" for name, value in trained_s.items())
    medians = ", ".join(f"{what} {ms:.2f} ms" for what, ms in costs.latency_ms.items())
    return "\n".join(
        [
            "# Base and BM25 without trained experts" if alone else "# Routing between retrieval experts",
            "",
            f"Made by `{command}` from [public collections](sources.md).",
            "Scores are nDCG@10 on test queries; differences are paired, with 95% bootstrap intervals over queries. A",
            "quarter of the train queries (all where nothing is trained), at most 200 per collection, form the pilot",
            "library; experts are trained on the others. Settings are chosen on dev queries, and on pilots whose",
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
            "Each collection in turn, without its labelled queries and without the expert trained on it.",
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
            f"Experts trained in this run, minutes: {times or 'none'}. The rest took {seconds / 60:.0f} minutes.",
            "",
        ]
    )


def measure(data: Path, trained: list[Path], out: Path, cache: Path, seed: int) -> tuple[RetrievalReport, Costs]:
    """The report with all arms, and what routing costs; the multi-task expert is compared with and never routed to."""
    alone = [each for each in trained if each.name == MULTITASK]
    named = config_of(out / "experts.yaml", [each for each in trained if each.name != MULTITASK])
    request = RetrievalRequest(data, named, cache, command="benchmarks/retrieval_routing.py", seed=seed)
    collections = [read_collection(folder) for folder in find_collections(data)]
    experts = build_experts(*requested_experts(config_of(out / "multitask.yaml", alone))) if alone else {}
    with_tests = [each for each in collections if alone and len(each.split("test"))]
    found = {each.name: multitask_of(Searcher(each, experts, cache)) for each in with_tests}
    of_train = frozenset(each.name for each in collections if len(each.split("train")))
    further, tests = FurtherArms(found, of_train), dict[str, Labelled]()

    def compare(test: Labelled, situation: Situation, plain: PlainFusions | None) -> Compared:
        tests[test.collection] = test
        return further(test, situation, plain)

    report, library = run_retrieval(request, now=datetime.now(UTC), progress=lambda _: None, compare=compare)
    write_report(report, retrieval_page(report), out)
    served = build_experts(*requested_experts(named))
    searchers = [Searcher(each, served, cache) for each in collections if each.name in tests]
    added = cost_of_adding(list(tests.values()), library, report.experts)
    return report, Costs(added, latency_ms(served, library, searchers))


def main(
    data: Annotated[Path, typer.Option(help="folder of collections")] = DATA,
    work: Annotated[Path, typer.Option(help="folder for experts, embeddings and the report")] = ROOT
    / "data"
    / "retrieval-results",
    out: Annotated[Path, typer.Option(help="page to write")] = RESULTS,
    seed: Annotated[int, typer.Option(help="of every random draw of the evaluation")] = 0,
    without_trained: Annotated[bool, typer.Option("--without-trained", help="base and BM25 alone")] = False,
) -> None:
    """Reproduce the retrieval results."""
    console, began_s = Console(stderr=True), time.monotonic()
    cache, trained_s = work / "embeddings", {}
    for name in () if without_trained else train_missing(data, work, cache):
        trained_s[name] = time.monotonic() - began_s
        console.print(f"{trained_s[name]:5.0f} s  trained {name}", markup=False)
        began_s = time.monotonic()
    trained = [] if without_trained else sorted(each for each in (work / "trained").iterdir() if each.is_dir())
    measured, costs = measure(data, trained, work / "report", cache, seed)
    report: Report = measured.model_dump(mode="json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(report, costs, trained_s, time.monotonic() - began_s), encoding="utf-8")
    console.print(f"{report['headline']}\nwrote {out}", markup=False)


if __name__ == "__main__":
    typer.run(main)
