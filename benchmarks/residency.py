"""Policies of residency on a simulated host: switches, quality, waiting, fairness and time spent switching.

    python benchmarks/residency.py [--tables NAMES] [--scenarios NAMES] [--seeds N] [--first-seed N] [--out FILE]

Arrivals follow the real clients of `traces`, qualities are those of outcome tables, changes of state take the published
times, and the scheduler is the gateway's own on a fake clock. Options of `regret` were chosen on the tables of
`TABLES["tune"]` with seeds from 100 on; the page reports on others. Skipped with a reason where the data are absent.
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

from benchmarks.residency_arrivals import DAY_S, Draw, Trace, draw_arrivals, load_trace
from benchmarks.residency_clairvoyant import most_quality
from benchmarks.residency_tables import TABLES, Source, Table, load_table
from benchmarks.residency_world import POLICIES, Case, Scenario, simulate
from coe.fleet.residency.demand import Float64Array

DATA = Path(__file__).parent.parent / ".." / "shared" / "data"


PARTS: Mapping[str, Mapping[str, Any]] = {
    "steady": {"days": 1.0, "policies": tuple(POLICIES)},
    "drift": {"drifts": True},
    "cold start": {"starts_cold": True},
    "stalls": {"stalls": True},
    "the table's frequencies": {"by_frequency": True},
    "equal slots": {"switch_s": 13.0, "policies": ("regret", "static", "informed", "clairvoyant", "lru", "all awake")},
    "twenty clients": {"clients": 20},
}
"""Of scenarios, each with what it changes in `Scenario`."""

REPORTED = (*PARTS, "twenty clients + drift", "twenty clients + cold start")


def scenario_of(name: str) -> Scenario:
    """The scenario of a name such as "twenty clients + drift"."""
    return Scenario(**{field: value for part in name.split(" + ") for field, value in PARTS[part].items()})


PER_S, WARM_DAYS, TRACE_DAYS = 0.5, 0.2, 12
BOOTSTRAPS = 2000
COMPARED = ("regret", "informed", "clairvoyant")
BOUNDS: Mapping[str, float] = {f"at most {each} per 1,000": each for each in (1, 2, 5, 10, 30)}
"""Switches of any plan, by the name of the bound."""


Found = dict[str, Any]


def case_of(table: Table, fits: float, trace: Trace, scenario: Scenario, seed: int) -> Case:
    warm = 0.0 if scenario.starts_cold else WARM_DAYS
    first = float(seed % TRACE_DAYS)
    odds = table.mass if scenario.by_frequency else np.full(len(table.mass), 1 / len(table.mass))
    draw = Draw((first, first + warm + scenario.days), odds, PER_S, scenario.clients, scenario.drifts)
    return Case(table, fits, draw_arrivals(trace, draw, seed), (first + warm) * DAY_S, odds, scenario)


def runs(sources: Mapping[str, Source], data: Path, seeds: Sequence[int], scenarios: Sequence[str]) -> Iterator[Found]:
    trace = load_trace(data / "traces" / "servegen_language.parquet")
    tables = {name: load_table(data / "routing", name, source) for name, source in sources.items()}
    for scenario in scenarios:
        world = scenario_of(scenario)
        for name, table in tables.items():
            for seed in seeds:
                case = case_of(table, sources[name].fits, trace, world, seed)
                run = {"table": name, "scenario": scenario, "seed": seed}
                for kind in world.policies:
                    yield {**run, "policy": kind, **simulate(case, kind)}
                most = most_quality(case.category(), table.predicted, *case.host(), list(BOUNDS.values()))
                for kind, predicted in zip(BOUNDS, map(float, most), strict=True):
                    yield {**run, "policy": kind, "predicted": predicted}


def mean_of(found: Sequence[Found], key: str) -> float:
    return float(np.mean([each[key] for each in found]))


def gains(
    found: Sequence[Found], policy: str, against: str, key: str, most: str = "all awake"
) -> tuple[Float64Array, Float64Array]:
    """(seeds,) what a policy gains over another one, and what `most` does: on the mean of the tables.

    Args:
        key: `quality` on the test prompts, or `predicted`.
    """
    values: dict[tuple[str, str], dict[int, float]] = {}
    for each in found:
        if each["policy"] in (policy, against, most):
            values.setdefault((each["table"], each["policy"]), {})[each["seed"]] = each[key]
    tables, seeds = sorted({table for table, _ in values}), sorted({each["seed"] for each in found})

    def of(policy: str) -> Float64Array:
        return np.array(np.mean([[values[table, policy][number] for number in seeds] for table in tables], axis=0))

    return of(policy) - of(against), of(most) - of(against)


def won_back(
    found: Sequence[Found],
    policy: str = "regret",
    against: str = "static",
    key: str = "quality",
    most: str = "all awake",
) -> tuple[float, float, float]:
    """The share of the quality that a static set loses against all awake, or another policy, which a policy wins back,
    with a 95% interval by bootstrap over seeds (drawn together for all tables)."""
    gain, lost = gains(found, policy, against, key, most)
    drawn = draws(len(gain))
    low, high = np.percentile(gain[drawn].sum(axis=1) / lost[drawn].sum(axis=1), [2.5, 97.5])
    return float(gain.sum() / lost.sum()), float(low), float(high)


def draws(n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(0).integers(n, size=(BOOTSTRAPS, n))


def interval(values: Sequence[float]) -> str:
    """Mean with the half width of a 95% interval over seeds."""
    half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.2f} ± {half:.2f}"


def table_lines(found: Sequence[Found]) -> list[str]:
    """One row a policy."""
    lines = [
        "| policy | switches per 1,000 | predicted quality | quality on test | p50 / p95 / p99 wait, s "
        "| loss of the worst category | seconds switching, of 1,000 |",
        "| --- " * 7 + "|",
    ]
    for kind in POLICIES:
        own = [each for each in found if each["policy"] == kind]
        if not own:
            continue
        waits = np.mean([each["wait_s"] for each in own], axis=0)
        share = [1000 * each["switch_s"] / each["seconds"] for each in own]
        lines.append(
            f"| {kind} | {interval([each['switches'] for each in own])} "
            f"| {interval([100 * each['predicted'] for each in own])} "
            f"| {interval([100 * each['quality'] for each in own])} | {waits[0]:.2f} / {waits[1]:.2f} / {waits[2]:.2f} "
            f"| {100 * mean_of(own, 'worst_loss'):.1f} | {np.mean(share):.2f} |"
        )
    return lines


def page_lines(found: Sequence[Found]) -> Iterator[str]:
    scenarios = list(dict.fromkeys(run["scenario"] for run in found))
    yield (
        "| | of what the clairvoyant wins | of what static loses: regret | informed | clairvoyant | nobody more than "
        "| points on test: regret | informed | clairvoyant | switches | p95 wait |"
    )
    yield "| --- " * 11 + "|"
    for scenario in scenarios:
        own = [each for each in found if each["scenario"] == scenario]
        shares = [won_back(own, kind, key="predicted") for kind in (*COMPARED, "at most 2 per 1,000")]
        of_best = share_words(won_back(own, key="predicted", most="clairvoyant"))
        parts = [of_best if shares[2][1] > 0 else "it may win nothing", *map(share_words, shares)]
        parts += [points_words(own, kind) for kind in COMPARED]
        switches = [mean_of([each for each in own if each["policy"] == kind], "switches") for kind in COMPARED]
        slower = [f"{most_waited(own, kind):+.1f}" for kind in COMPARED]
        parts += [", ".join(f"{each:.2f}" for each in switches), ", ".join(slower)]
        yield f"| {scenario} | {' | '.join(parts)} |"
    yield "\nThe most of what `static` loses that anybody who serves each request at once can win back, by switches:\n"
    yield f"| | {' | '.join(BOUNDS)} |"
    yield "| --- " * (1 + len(BOUNDS)) + "|"
    for scenario in scenarios:
        own = [each for each in found if each["scenario"] == scenario]
        yield f"| {scenario} | {' | '.join(share_words(won_back(own, kind, key='predicted')) for kind in BOUNDS)} |"
    for scenario in scenarios:
        own = [each for each in found if each["scenario"] == scenario]
        yield f"\n## {scenario.capitalize()}"
        if "static in hindsight" in scenario_of(scenario).policies:
            words = share_words(won_back(own, against="static in hindsight", key="predicted"))
            yield f"\nOf the predicted quality that `static in hindsight` loses, `regret` wins back {words}."
        for table in dict.fromkeys(each["table"] for each in own):
            yield f"\n### {table}, {scenario}\n"
            yield from table_lines([each for each in own if each["table"] == table])


def most_waited(found: Sequence[Found], policy: str) -> float:
    """Seconds by which the p95 wait of a policy is longer than that of static, the most of any run."""
    chosen = [each for each in found if each["policy"] in (policy, "static")]
    p95_s = {(each["policy"], each["table"], each["seed"]): each["wait_s"][1] for each in chosen}
    return max(p95_s[policy, *run] - p95_s["static", *run] for kind, *run in p95_s if kind == policy)


def share_words(share: tuple[float, float, float]) -> str:
    return f"{share[0]:.0%} [{share[1]:.0%}, {share[2]:.0%}]"


def points_words(found: Sequence[Found], policy: str) -> str:
    """Points of quality on test that a policy wins back, with a 95% interval by bootstrap over seeds, of those lost."""
    gain, lost = gains(found, policy, "static", "quality")
    low, high = 100 * np.percentile(gain[draws(len(gain))].mean(axis=1), [2.5, 97.5])
    return f"{100 * gain.mean():+.2f} [{low:+.2f}, {high:+.2f}] of {100 * lost.mean():.2f}"


def main(
    tables: Annotated[str, typer.Option(help="comma-separated")] = ",".join(TABLES["report"]),
    scenarios: Annotated[str, typer.Option(help="comma-separated, each of parts joined by ' + '")] = ",".join(REPORTED),
    seeds: Annotated[int, typer.Option(min=2)] = 8,
    first_seed: Annotated[int, typer.Option()] = 1,
    data: Annotated[Path, typer.Option()] = DATA,
    out: Annotated[Path | None, typer.Option(help="JSON lines of every run")] = None,
    read: Annotated[list[Path] | None, typer.Option(help="files of earlier --out instead of running")] = None,
) -> None:
    chosen, wanted, sources = scenarios.split(","), tables.split(","), {**TABLES["tune"], **TABLES["report"]}
    for option, names, allowed in (
        ("--scenarios", " + ".join(chosen).split(" + "), PARTS),
        ("--tables", wanted, sources),
    ):
        if unknown := [each for each in names if each not in allowed]:
            raise typer.BadParameter(f"{', '.join(unknown)}; allowed: {', '.join(allowed)}", param_hint=option)
    if read:
        found = [json.loads(line) for file in read for line in file.read_text(encoding="utf-8").splitlines()]
    elif not (data / "traces" / "servegen_language.parquet").exists():
        print(f"skipped: {data} has no traces/servegen_language.parquet")
        return
    else:
        found = []
        for run in runs({name: sources[name] for name in wanted}, data, range(first_seed, first_seed + seeds), chosen):
            found.append(run)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run) + "\n")
    print("\n".join(page_lines(found)))


if __name__ == "__main__":
    typer.run(main)
