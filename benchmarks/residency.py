"""Policies of residency on a simulated host: switches, quality, waiting, fairness and time spent switching.

    python benchmarks/residency.py [--tables NAMES] [--seeds N] [--first-seed N] [--set tune|report] [--out FILE]

Arrivals follow real clients of `traces`, qualities are those of outcome tables, changes of state take the published
times, and the scheduler is the gateway's own on a fake clock. Options of `regret` were chosen on the tables and seeds
of `--set tune`; the page reports on others. Skipped with a reason where the data are absent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.residency_world import (
    POLICIES,
    Case,
    RegretOptions,
    Table,
    draw_arrivals,
    load_table,
    load_trace,
    simulate,
)
from fleet.residency.demand import Float64Array

DATA = Path(__file__).parent.parent / ".." / "shared" / "data"
FASTEVAL_8 = (
    *("wizardmath-70b-v1.0", "wizardcoder-python-34b-v1.0", "wizardlm-70b-v1.0", "llama-2-70b-chat"),
    *("llama2-70b-oasst-sft-v10", "stablebeluga2", "wizardmath-13b-v1.0", "vicuna-33b-v1.3"),
)
TABLES: Mapping[str, Mapping[str, tuple[str, tuple[str, ...] | None, float, float]]] = {
    "tune": {"llmrouter_dc_9": ("llmrouter_dc", None, 80, 3), "fasteval_to_15b": ("fasteval", None, 15, 4)},
    "report": {
        "routerdc_7": ("routerdc", None, 80, 3),
        "fasteval_8": ("fasteval", FASTEVAL_8, 80, 3),
        "open_llm_lb_to_35b": ("open_llm_lb_v2", None, 35, 4),
        "mmlu_pro_to_110b": ("mmlu_pro_cot", None, 110, 6),
    },
}
"""Source, experts (None: all of open weights), largest model in billions, and how many of mean size fit."""

SCENARIOS = ("steady", "drift", "cold start", "stalls")
FEW = ("regret", "static", "all awake")
CLIENTS, PER_S, FOCUS, WARM_DAYS, DAYS = 20, 0.5, 1.0, 0.2, 1.0
BOOTSTRAPS = 2000

Found = dict[str, Any]


def case_of(table: Table, fits: float, trace: Mapping[str, Any], scenario: str, seed: int) -> Case:
    day = float(seed % 12)
    warm = 0.0 if scenario == "cold start" else WARM_DAYS
    arrivals = draw_arrivals(
        trace,
        table.mass,
        days=(day, day + warm + DAYS),
        per_s=PER_S,
        clients=CLIENTS,
        focus=FOCUS,
        drifts=scenario == "drift",
        seed=seed,
    )
    from_s = (day + warm) * 86400.0
    return Case(table, fits, arrivals, from_s, starts_cold=scenario == "cold start", stalls=scenario == "stalls")


def runs(
    names: Mapping[str, tuple[str, tuple[str, ...] | None, float, float]],
    data: Path,
    seeds: Sequence[int],
    scenarios: Sequence[str],
) -> Iterator[Found]:
    trace = load_trace(data / "traces" / "servegen_language.parquet")
    for name, (source, experts, most_b, fits) in names.items():
        table = load_table(data / "routing", name, source, experts, most_b)
        for scenario in scenarios:
            for seed in seeds:
                case = case_of(table, fits, trace, scenario, seed)
                for kind in POLICIES if scenario == "steady" else FEW:
                    found = simulate(case, kind, RegretOptions())
                    yield {"table": name, "scenario": scenario, "seed": seed, "policy": kind, **found}


def mean_of(found: Sequence[Found], key: str) -> float:
    return float(np.mean([each[key] for each in found]))


def won_back(found: Sequence[Found], against: str, seed: int = 0) -> tuple[float, float, float]:
    """The share of the quality that a static set loses against all awake which `regret` wins back: on the mean of the
    tables, with a 95% interval by bootstrap over seeds (drawn together for all tables)."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for each in found:
        values.setdefault((each["table"], each["policy"]), {})[each["seed"]] = each["quality"]
    tables, seeds = sorted({table for table, _ in values}), sorted({each["seed"] for each in found})

    def of(policy: str) -> Float64Array:
        return np.array([[values[table, policy][number] for number in seeds] for table in tables]).mean(axis=0)

    gain, lost = of("regret") - of(against), of("all awake") - of(against)
    draws = np.random.default_rng(seed).integers(len(seeds), size=(BOOTSTRAPS, len(seeds)))
    shares = gain[draws].sum(axis=1) / lost[draws].sum(axis=1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(gain.sum() / lost.sum()), float(low), float(high)


def interval(values: Sequence[float]) -> str:
    """Mean with the half width of a 95% interval over seeds."""
    half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.2f} ± {half:.2f}"


def table_lines(found: Sequence[Found]) -> list[str]:
    """One row a policy."""
    lines = [
        "| policy | switches per 1,000 | quality | p50 / p95 / p99 wait, s | loss of the worst category "
        "| seconds switching, of 1,000 |",
        "| --- " * 6 + "|",
    ]
    for kind in POLICIES:
        own = [each for each in found if each["policy"] == kind]
        if not own:
            continue
        waits = np.mean([each["wait_s"] for each in own], axis=0)
        share = [1000 * each["switch_s"] / each["seconds"] for each in own]
        lines.append(
            f"| {kind} | {interval([each['switches'] for each in own])} "
            f"| {interval([100 * each['quality'] for each in own])} | {waits[0]:.2f} / {waits[1]:.2f} / {waits[2]:.2f} "
            f"| {100 * mean_of(own, 'worst_loss'):.1f} | {np.mean(share):.2f} |"
        )
    return lines


def page_lines(found: Sequence[Found], scenarios: Sequence[str]) -> Iterator[str]:
    for scenario in scenarios:
        of_scenario = [each for each in found if each["scenario"] == scenario]
        yield f"\n## {scenario.capitalize()}\n"
        share, low, high = won_back(of_scenario, "static")
        yield f"Won back of what `static` loses, on the mean of the tables: {share:.0%} [{low:.0%}, {high:.0%}]."
        if scenario == "steady":
            share, low, high = won_back(of_scenario, "static in hindsight")
            yield f"Of what `static in hindsight` loses: {share:.0%} [{low:.0%}, {high:.0%}]."
        for table in dict.fromkeys(each["table"] for each in of_scenario):
            yield f"\n### {table}, {scenario}\n"
            yield from table_lines([each for each in of_scenario if each["table"] == table])


def main(
    part: Annotated[str, typer.Option("--set", help="tune or report")] = "report",
    tables: Annotated[str, typer.Option(help="comma-separated; all of the set by default")] = "",
    scenarios: Annotated[str, typer.Option(help="comma-separated")] = ",".join(SCENARIOS),
    seeds: Annotated[int, typer.Option(min=2)] = 8,
    first_seed: Annotated[int, typer.Option()] = 1,
    data: Annotated[Path, typer.Option()] = DATA,
    out: Annotated[Path | None, typer.Option(help="JSON lines of every run")] = None,
    read: Annotated[list[Path] | None, typer.Option(help="files of earlier --out instead of running")] = None,
) -> None:
    chosen = scenarios.split(",")
    if read:
        found = [json.loads(line) for file in read for line in file.read_text(encoding="utf-8").splitlines()]
        chosen = [each for each in chosen if any(run["scenario"] == each for run in found)]
    elif not (data / "traces" / "servegen_language.parquet").exists():
        print(f"skipped: {data} has no traces/servegen_language.parquet")
        return
    else:
        names = {name: TABLES[part][name] for name in (tables.split(",") if tables else TABLES[part])}
        found = []
        for run in runs(names, data, range(first_seed, first_seed + seeds), chosen):
            found.append(run)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run) + "\n")
    print("\n".join(page_lines(found, chosen)))


if __name__ == "__main__":
    typer.run(main)
