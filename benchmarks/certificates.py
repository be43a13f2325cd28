"""How often `coe certify` is wrong, and what it certifies.

    python -m benchmarks.certificates [--operators 400] [--draws 40] [--data DIR] [--only NAME ...]

Simulated operators have a plan that is truly worse than allowed. They choose it from graded prompts as the product
does, look after every batch, and grade what the product draws. On tables of real prompts a router is fitted on some
prompts, and the others are drawn in batches until so many are graded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.stats import norm

from coe.base.embedding_cache import CachedEncoder
from coe.base.errors import ConfigError
from coe.base.shares import wilson_interval
from coe.cli.progress import silent
from coe.eval.certify.certify import shown_plans
from coe.eval.certify.ladder import Choices, Ladder, build_ladder
from coe.eval.certify.units import Drawn, draw_chances, easier_only, grade_choices, units_of
from coe.eval.routing.routing_run import encode, load
from coe.eval.routing.table_fit import TableRequest, fit_table
from coe.router.build import table_router
from coe.router.config.policy import Budgets, PolicyConfig, QualityFloor
from coe.router.model_files.artifact import RouterArtifact
from coe.router.pipeline import Router
from coe.router.strategies.agree import StrategyName
from coe.router.types import CategoryProbs
from coe.training.datasets.outcomes import read_outcomes
from coe.training.expert_map import measure_quality
from coe.training.graded_queries import GradedQueries
from coe.training.strategies.strategy_fit import fit_strategies
from coe.training.types import OutcomeTable

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".." / "shared" / "data" / "routing"
WITHIN, BATCH = 0.01, 50

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """After a batch: prompts taken up, those of them graded, plans shown, and what the last of these saves."""

    n_taken_up: int
    n_graded: int
    n_shown: int
    saving: float


def looks(ladder: Ladder, table: OutcomeTable, choices: Choices, rng: np.random.Generator, most: int) -> Iterator[Look]:
    """Draws batches from the prompts of a table, in its order, until so many are graded or none is left."""
    drawn, units = list[Drawn](), None
    while len(drawn) < len(table.texts) and sum(each.is_drawn for each in drawn) < most:
        done, rest = (
            Choices(choices.choice[part], choices.row[part]) for part in (slice(len(drawn)), slice(len(drawn), None))
        )
        gains = np.zeros((0, len(ladder.names))) if units is None else units.gains
        n_shown = 0 if units is None else shown_plans(units, WITHIN)[1]
        chance = draw_chances(gains, done, rest, min(n_shown, len(ladder.names) - 1))
        least, is_drawn = float(chance[chance > 0].min(initial=1.0)), rng.random(len(chance)) < chance
        enough = np.flatnonzero(np.cumsum(is_drawn) >= BATCH)
        for i in range(int(enough[0]) + 1 if len(enough) else len(chance)):
            drawn.append(Drawn(text=str(len(drawn)), chance=float(chance[i]), least=least, is_drawn=bool(is_drawn[i])))
        at = np.array([i if each.is_drawn else -1 for i, each in enumerate(drawn)])
        taken = Choices(choices.choice[: len(drawn)], choices.row[: len(drawn)])
        units = units_of(drawn, table, at, taken, ladder)
        n_shown = shown_plans(units, WITHIN)[1]
        saving = float(units.saved[:, n_shown - 1].sum() / units.base.sum()) if n_shown else 0.0
        yield Look(len(drawn), sum(each.is_drawn for each in drawn), n_shown, saving)


CATEGORIES, EXPERTS = ("analysis", "coding", "history", "letters"), ("small", "other", "middle", "strong")
PRICES = np.array([1.0, 1.2, 3.0, 10.0])
FITTED, POOL, LIKE = 400, 1500, 0.6
"""Graded prompts that a plan is chosen on, prompts that may be drawn, and the correlation of right answers."""


def equal(rng: np.random.Generator) -> Floats:
    """(k, m) accuracies: the strong one is better by a little more than is allowed, everywhere."""
    level = rng.uniform(0.5, 0.9, size=(4, 1))
    return np.clip(level - np.array([[1, 1, 1, 0]]) * rng.uniform(0.0105, 0.03, size=(1, 4)), 0.05, 0.98)


def specialists(rng: np.random.Generator) -> Floats:
    """Cheap ones are as good as the strong one in two categories, and far behind in the others."""
    strong = rng.uniform(0.6, 0.9, size=(4, 1))
    behind = np.stack([rng.permutation([0.0, 0.005, 0.06, 0.2]) for _ in range(3)], axis=1)
    return np.clip(np.hstack([strong - behind, strong]), 0.05, 0.98)


def even(rng: np.random.Generator) -> Floats:
    """All are equally good."""
    return np.repeat(rng.uniform(0.6, 0.9, size=(4, 1)), 4, axis=1)


def answers(accuracy: Floats, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """(n, m) scores and numbers of answers: prompts are hard for all in part, and a wrong answer is one of three."""
    n, m = len(rows), accuracy.shape[1]
    luck = np.sqrt(LIKE) * rng.normal(size=(n, 1)) + np.sqrt(1 - LIKE) * rng.normal(size=(n, m))
    is_right = luck < norm.ppf(accuracy[rows])
    return is_right.astype(np.float64), np.where(is_right, 0, rng.integers(1, 4, size=(n, m)))


def simulated_table(accuracy: Floats, n: int, rng: np.random.Generator) -> OutcomeTable:
    rows = rng.integers(0, len(CATEGORIES), size=n)
    scores, keys = answers(accuracy, rows, rng)
    nothing = np.full(scores.shape, np.nan, dtype=np.float32)
    return OutcomeTable(
        prompt_ids=tuple(map(str, range(n))),
        texts=tuple(f"{CATEGORIES[row]} question {i} about {CATEGORIES[row]}" for i, row in enumerate(rows.tolist())),
        categories=tuple(CATEGORIES[row] for row in rows.tolist()),
        splits=("train",) * n,
        experts=EXPERTS,
        scores=scores.astype(np.float32),
        cost_usd=np.broadcast_to(PRICES, scores.shape).astype(np.float32),
        output_tokens=nothing,
        latency_ms=nothing,
        metric="simulated",
        source="simulated",
        answers=keys,
    )


@dataclass(frozen=True)
class Operator:
    """A ladder that was chosen on graded prompts, and the true gains (c,) of its plans."""

    ladder: Ladder
    accuracy: Floats

    def rows(self, table: OutcomeTable) -> NDArray[np.int64]:
        return np.array([CATEGORIES.index(name) for name in table.categories])

    def choices(self, table: OutcomeTable) -> Choices:
        rows = self.rows(table)
        return Choices(self.ladder.by_row[rows], rows)

    def gains(self, accuracy: Floats, rng: np.random.Generator, n: int = 40_000) -> Floats:
        table = simulated_table(accuracy, n, rng)
        scores, _ = grade_choices(table, self.choices(table), self.ladder)
        return np.asarray((scores[:, 1:] - scores[:, :1]).mean(axis=0))


def operator_of(base: RouterArtifact, accuracy: Floats, rng: np.random.Generator) -> Operator | None:
    """Who grades FITTED prompts, and takes the plans that the product finds, of one expert or of several; None where
    none is cheaper. Stage 1 is right."""
    table = simulated_table(accuracy, FITTED, rng)
    evidence = measure_quality(table, CATEGORIES)
    own = np.eye(len(CATEGORIES), dtype=np.float32)[[CATEGORIES.index(name) for name in table.categories]]
    queries = GradedQueries(table, np.zeros((FITTED, 1), np.float32), CategoryProbs(CATEGORIES, own))
    ways = fit_strategies(queries, evidence, silent)
    assert ways is not None, "all answers are known"
    learned = {f"map.{name}": array for name, array in evidence.arrays().items()}
    learned |= {f"strategies.{name}": array for name, array in ways.arrays().items()}
    artifact = replace(base, arrays={**base.arrays, **learned})
    price = dict(zip(EXPERTS, PRICES.tolist(), strict=True))

    def loaded(more: Mapping[str, PolicyConfig]) -> Router:
        return table_router(artifact, cost_usd=price, policies=more)

    try:
        ladder = build_ladder(loaded, "saver", {"saver": saver("strong", list(StrategyName)[rng.integers(2)])})
    except ConfigError:
        return None
    rows = np.array([CATEGORIES.index(name) for name in table.categories])
    return Operator(easier_only(ladder, table, Choices(ladder.by_row[rows], rows), WITHIN), accuracy)


def saver(of: str, strategy: StrategyName = StrategyName.AGREE) -> PolicyConfig:
    return PolicyConfig(strategy=strategy, quality_floor=QualityFloor(within=WITHIN, of=of))


def base_artifact() -> RouterArtifact:
    table = simulated_table(np.full((4, 4), 0.7), 80, np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        return fit_table(Path(folder), TableRequest(table, "hashing"), now=datetime.now(UTC), progress=silent)


@dataclass(frozen=True)
class Outcome:
    """An operator whose plan is truly worse than allowed: whether such a plan was shown at a look, whether it still is
    after the last, how many plans are good enough, and how many were shown at most."""

    is_wrong: bool
    is_wrong_last: bool
    n_good: int
    n_shown: int


@dataclass(frozen=True)
class World:
    """Accuracies (k, m) of experts; with a `drop` the cheap ones lose so much after a third of the prompts, and good
    enough is who is after that."""

    draw: Callable[[np.random.Generator], Floats]
    drop: float = 0.0


WORLDS = {
    "equal experts": World(equal),
    "specialists": World(specialists),
    "drift after the grades": World(even, 0.15),
}


def outcome_of(base: RouterArtifact, world: World, seed: int) -> Outcome | None:
    """None where the operator finds nothing cheaper, or a plan that is good enough."""
    rng = np.random.default_rng(seed)
    accuracy = world.draw(rng)
    found = operator_of(base, accuracy, rng)
    if found is None:
        return None
    after = np.clip(accuracy - world.drop * (PRICES.max() > PRICES), 0.02, 0.98)
    is_bad = found.gains(after, rng) < -WITHIN
    if not is_bad[-1]:
        return None
    table = simulated_table(accuracy, POOL, rng)
    changed = POOL // 3 if world.drop else 0
    if changed:
        table = table.rows(range(changed)).joined(simulated_table(after, POOL, rng).rows(range(changed, POOL)))
    seen = list(looks(found.ladder, table, found.choices(table), rng, POOL))
    early = max((look.n_shown for look in seen if look.n_taken_up <= changed), default=0)
    # What was shown before a change was true then.
    wrong = [bool(is_bad[early : look.n_shown].any()) for look in seen if look.n_taken_up > changed]
    is_wrong_last = bool(is_bad[: seen[-1].n_shown].any())
    return Outcome(any(wrong), is_wrong_last, int((~is_bad).sum()), max(look.n_shown for look in seen))


def simulate(base: RouterArtifact, name: str, n: int) -> str:
    """A row of the table: so many operators, by ever new seeds."""
    found, seed, start = list[Outcome](), 0, 1_000_000 * list(WORLDS).index(name)
    while len(found) < n:
        made = outcome_of(base, WORLDS[name], start + seed)
        found += [] if made is None else [made]
        seed += 1
    wrong, last = sum(each.is_wrong for each in found), sum(each.is_wrong_last for each in found)
    some = sum(each.n_good > 0 for each in found)
    served = sum(each.n_shown > 0 and not each.is_wrong for each in found)
    low, high = wilson_interval(wrong / n, n)
    share = f"{wrong} of {n} ({100 * wrong / n:.1f}%, {100 * low:.1f} to {100 * high:.1f})"
    return f"| {name} | {share} | {last} | {some} | {served} |"


@dataclass(frozen=True)
class Case:
    """A table of real prompts: how many to fit on, how many to grade, and what plans are compared with."""

    read: Callable[[Path], OutcomeTable]
    of: str
    n_fit: int
    n_graded: int


CALLERS = {
    "claude-3-5-sonnet-20240620": (3.0, 15.0),
    "gpt-4o-mini-2024-07-18": (0.15, 0.6),
    "Salesforce_xLAM-7b-fc-r": (0.2, 0.2),
    "ibm-granite_granite-20b-functioncalling": (0.4, 0.4),
    "open-mixtral-8x22b-FC-Any": (2.0, 6.0),
    "meetkai_functionary-small-v3.1-FC": (0.2, 0.2),
}
"""USD per million tokens of prompts and answers: list prices of 2024, of open models those of hosts by size."""

TOOLS_TOKENS = 300
"""Tokens of a prompt's tools: those of Claude's prompts in the log less the question."""

FIVE = ("qwen2-7b-instruct", "gemma-2-9b-it", "gemma-2-27b-it", "llama-3.1-70b-instruct", "qwen2-72b-instruct")


def tool_calls(data: Path) -> OutcomeTable:
    table = read_outcomes(data / "bfcl", experts=tuple(CALLERS))
    prompt = np.array([len(text) / 4 + TOOLS_TOKENS for text in table.texts])
    rates = np.array(list(CALLERS.values())).T
    cost = (prompt[:, None] * rates[0] + table.output_tokens * rates[1]) / 1e6
    return replace(table, cost_usd=cost.astype(np.float32))


def five(data: Path) -> OutcomeTable:
    """Hosted models: without prices, so active parameters count."""
    table = read_outcomes(data / "zeroeval", experts=FIVE)
    return replace(table, cost_usd=np.full_like(table.cost_usd, np.nan))


CASES = {
    "tool calls": Case(tool_calls, "claude-3-5-sonnet-20240620", 300, 400),
    "tool calls, 400 with those fitted on": Case(tool_calls, "claude-3-5-sonnet-20240620", 200, 200),
    "zeroeval's five": Case(five, "llama-3.1-70b-instruct", 800, 700),
}


def savings(case: Case, table: OutcomeTable, seed: int, cache: Path) -> tuple[float, int]:
    """The largest saving that was certified, and the graded prompts of the first certificate; 0 of none."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table.texts))
    fit, rest = table.rows(order[: case.n_fit]), table.rows(order[case.n_fit :])
    with tempfile.TemporaryDirectory() as folder:
        artifact = fit_table(Path(folder), TableRequest(fit, cache=cache), now=datetime.now(UTC), progress=silent)
    router = load(artifact, fit, Budgets())
    encoder = CachedEncoder(router.encoder, cache)
    vectors = [encode(encoder, part.texts, silent, "") for part in (fit, rest)]

    def loaded(more: Mapping[str, PolicyConfig]) -> Router:
        return load(artifact, fit, Budgets(), router.encoder, more)

    try:
        ladder = build_ladder(loaded, "saver", {"saver": saver(case.of)})
    except ConfigError:
        return 0.0, 0
    ladder = easier_only(ladder, fit, ladder.choices(vectors[0]), WITHIN)
    found = [look for look in looks(ladder, rest, ladder.choices(vectors[1]), rng, case.n_graded) if look.n_shown]
    return (max(look.saving for look in found), found[0].n_graded) if found else (0.0, 0)


def main(
    operators: Annotated[int, typer.Option(help="simulated operators of a world")] = 400,
    draws: Annotated[int, typer.Option(help="draws of a table")] = 40,
    data: Annotated[Path, typer.Option(help="folder of outcome tables")] = DATA,
    only: Annotated[list[str] | None, typer.Option(help="worlds and tables by name; default: all")] = None,
    cache: Annotated[Path, typer.Option(help="folder that keeps embeddings")] = Path("embeddings"),
) -> None:
    """Print a row for each world, and for each table."""
    base, wanted = base_artifact(), only or [*WORLDS, *CASES]
    print("| world | wrong at some look | wrong at the end | another plan is good enough | certified rightly |")
    print("| --- " * 5 + "|")
    for name in WORLDS:
        if name in wanted:
            print(simulate(base, name, operators), flush=True)
    print("\n| table | fitted on | graded | certified | median saving (quartiles) | graded at the first certificate |")
    print("| --- " * 6 + "|")
    for name, case in CASES.items():
        if name not in wanted:
            continue
        table = case.read(data)
        found = [savings(case, table, seed, cache) for seed in range(draws)]
        low, median, high = (f"{100 * q:.0f}%" for q in np.quantile([saving for saving, _ in found], [0.25, 0.5, 0.75]))
        firsts = [first for _, first in found if first]
        share, saved = f"{len(firsts)} of {draws}", f"{median} ({low} to {high})"
        first = np.median(firsts) if firsts else 0
        print(f"| {name} | {case.n_fit} | {case.n_graded} | {share} | {saved} | {first:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
