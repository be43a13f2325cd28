"""Strategies that ask several experts, and published ways to do so, on tables whose answers are known.

    python -m benchmarks.strategies [--tables FILE] [--outcomes DIR] [--only NAME ...] [--runs RUN ...] [--work DIR]

Every prompt is played by what was learned without it: on the test split by train and valid prompts, and out of fold by
the other folds of all prompts. Published ways are given the same prompts to learn from. One run is one process; what it
found lies under --work, so a stopped run continues.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from numpy.typing import NDArray

from coe.cli.progress import silent
from coe.eval.metrics.intervals import bootstrap_means, percentile_interval
from coe.eval.routing import baselines
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.routing_run import load, run_trial
from coe.eval.routing.strategy_arms import play_plan
from coe.eval.routing.table_fit import TableRequest, fit_table
from coe.eval.routing.trial import Trial
from coe.eval.routing.trial_tables import Tables
from coe.router.config.policy import Budgets, PolicyConfig
from coe.router.reading.normalise import normalised_text
from coe.router.strategies.agree import StrategyName
from coe.training.datasets.outcomes import read_outcomes
from coe.training.types import OutcomeTable

ROOT = Path(__file__).parent.parent
TABLES = ROOT / ".." / "shared" / "data" / "routing" / "TABLES.yaml"
FOLDS = 5
PAIR = ("llama-3.1-8b-instruct", "llama-3.1-70b-instruct")
OPTIONS = 10
"""Options of an answer that naive Bayes spreads wrong ones over."""

THREE = "plurality of the best three"

Arms = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Name -> (n,) score of what was served, (n, m) 1 where an expert was asked."""


@dataclass(frozen=True)
class Case:
    """A table to measure on, and limits on mean active parameters to measure under."""

    name: str
    source: str
    experts: tuple[str, ...]
    limits: tuple[float, ...] = ()


def cases_of(tables: Path) -> list[Case]:
    entries = yaml.safe_load(tables.read_text(encoding="utf-8"))
    named = [("mmlu_pro_small_6", (8.0,)), ("zeroeval_coe5", (31.1, 62.0))]
    found = [Case(name, entries[name]["source"], tuple(entries[name]["experts"]), limits) for name, limits in named]
    third = "phi-3-mini-4k-instruct"
    pair = tuple(8.0 + share * (70.6 - 8.0) for share in (0.5, 0.6, 0.7))
    return [
        *found,
        Case("pair", "mmlu_pro_cot", PAIR, pair),
        Case("pair and phi-3-mini", "mmlu_pro_cot", (PAIR[0], third, PAIR[1]), pair),
    ]


def fold_of(text: str) -> int:
    return int(hashlib.sha256(normalised_text(text).encode("utf-8", "surrogatepass")).hexdigest(), 16) % FOLDS


def parts(table: OutcomeTable) -> dict[str, tuple[OutcomeTable, OutcomeTable]]:
    """Fit and test rows by name: the test split, and every fold."""
    is_test = np.array([split == "test" for split in table.splits])
    number = np.array([fold_of(text) for text in table.texts])
    found = {"test": (table.rows(~is_test), table.rows(is_test))}
    return found | {f"fold {i}": (table.rows(number != i), table.rows(number == i)) for i in range(FOLDS)}


def measured(case: Case, fit: OutcomeTable, test: OutcomeTable, cache: Path) -> Arms:
    """Every arm on the test rows."""
    with tempfile.TemporaryDirectory() as scratch:
        artifact = fit_table(Path(scratch), TableRequest(fit, cache=cache), now=datetime.now(UTC), progress=silent)
    policies = {"agree": PolicyConfig(strategy=StrategyName.AGREE)}
    for limit in case.limits:
        budgets = Budgets(active_params_b=limit)
        policies[f"map at {limit:g}B"] = PolicyConfig(budgets=budgets)
        policies[f"agree at {limit:g}B"] = PolicyConfig(strategy=StrategyName.AGREE, budgets=budgets)
    router = load(artifact, fit, Budgets(), None, policies)
    request = RoutingRequest(outcomes=Path(), out=Path(), command="", cache=cache)
    trial = run_trial(Tables(fit, test, {}, 0), router, request, "", np.random.default_rng(0), silent)
    m = len(test.experts)
    single = np.full(len(test.texts), baselines.best_single(fit.scores))
    arms = {"best single": alone(trial, single), "router (map)": alone(trial, trial.decided)}
    arms["oracle"] = alone(trial, baselines.query_oracle(test.scores, trial.sizes_b))
    for name, policy in policies.items():
        plan = router.policy(name).plan
        if plan is not None:
            played = play_plan(router, trial, plan)
            served, calls = played.served, played.asked.astype(np.float64)
            arms[name] = (trial.scores[np.arange(len(served)), served], calls)
        else:
            expert_of = router.expert_of(name)
            arms[name] = alone(trial, trial.numbers([expert_of[d.category] for d in trial.decisions]))
            mixed = baselines.best_mixture(trial.fit_means, trial.sizes_b, float(policy.budgets.active_params_b or 0))
            if mixed is not None:
                every = np.broadcast_to(mixed, (len(single), m))
                arms[name.replace("map", "coin")] = ((every * trial.scores).sum(axis=1), every)
    return arms | {name: way(trial) for name, way in PUBLISHED.items()}


def alone(trial: Trial, experts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = np.arange(len(experts))
    return trial.scores[rows, experts], baselines.one_hot(experts, trial.scores.shape[1])


def answers(table: OutcomeTable) -> NDArray[np.int64]:
    assert table.answers is not None, "these tables have answers"
    return table.answers


def key_scores(keys: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m) mean score of the experts that gave answer a; 0 where nobody did."""
    given = keys[:, :, None] == np.arange(keys.shape[1])
    return np.asarray((given * scores[:, :, None]).sum(axis=1) / np.maximum(given.sum(axis=1), 1))


def weighed(trial: Trial, weights: NDArray[np.float64], asked: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """(n,) score of the answer of largest weight, without an answer the best expert's; `weights` (n, m) of votes."""
    keys = answers(trial.test) if asked is None else np.where(asked, answers(trial.test), -1)
    votes = keys[:, :, None] == np.arange(keys.shape[1])
    sums = np.where(votes.any(axis=1), (votes * weights[:, :, None]).sum(axis=1), -np.inf)
    score = key_scores(keys, trial.scores)[np.arange(len(keys)), sums.argmax(axis=1)]
    return np.where((keys >= 0).any(axis=1), score, trial.scores[:, trial.fit_means.argmax()])


def everybody(trial: Trial) -> NDArray[np.float64]:
    return np.ones(trial.scores.shape)


def plurality(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The most frequent answer; of equals that of the better experts."""
    return weighed(trial, 1 + 1e-3 * np.broadcast_to(trial.fit_means, trial.scores.shape)), everybody(trial)


def plurality_of_three(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same among the three that are best on the fit prompts, as many as `agree` may ask."""
    best = np.argsort(-trial.fit_means)[:3]
    asked = np.zeros(trial.scores.shape, dtype=bool)
    asked[:, best] = True
    return weighed(trial, 1 + 1e-3 * np.broadcast_to(trial.fit_means, asked.shape), asked), asked.astype(np.float64)


def naive_bayes(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Votes weighted by the log-odds of each expert's accuracy in the category, errors taken to be independent."""
    labels = np.array(trial.fit.categories)
    served = np.array([d.likely_category for d in trial.decisions])
    rates = np.empty(trial.scores.shape)
    for category in np.unique(served):
        own = trial.fit.scores[labels == category]
        rates[served == category] = (own.sum(axis=0) + 50 * trial.fit_means) / (len(own) + 50)
    rates = np.clip(rates, 0.02, 0.98)
    return weighed(trial, np.log(rates * (OPTIONS - 1) / (1 - rates))), everybody(trial)


def dawid_skene(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One-coin Dawid-Skene: accuracies from the agreement of the test answers alone, by EM (Dawid & Skene 1979)."""
    keys = answers(trial.test)
    votes = keys[:, :, None] == np.arange(keys.shape[1])
    rates = np.full(keys.shape[1], 0.6)
    for _ in range(50):
        weights = np.log(rates * (OPTIONS - 1) / (1 - rates))
        logit = np.where(votes.any(axis=1), (votes * weights[None, :, None]).sum(axis=1), -np.inf)
        belief = np.exp(logit - np.maximum(logit.max(axis=1, keepdims=True), -1e9))
        belief = np.where(votes.any(axis=1), belief, 0.0)
        belief /= np.maximum(belief.sum(axis=1, keepdims=True), 1e-12)
        given = votes.any(axis=2)
        rates = np.clip((votes * belief[:, None, :]).sum(axis=(0, 2)) / np.maximum(given.sum(axis=0), 1), 0.05, 0.95)
    return weighed(trial, np.broadcast_to(weights, keys.shape)), everybody(trial)


def by_size(trial: Trial) -> NDArray[np.int64]:
    return np.lexsort((trial.fit_means, trial.sizes_b))


def agreement_cascade(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cheapest first, until two gave the same answer; else the plurality (after ABC, 2407.02348)."""
    keys, asked = answers(trial.test), np.zeros(trial.scores.shape, dtype=bool)
    lives = np.ones(len(keys), dtype=bool)
    for expert in by_size(trial):
        asked[lives, expert] = True
        heard = np.where(asked, keys, -1)
        counts = (heard[:, :, None] == np.arange(keys.shape[1])).sum(axis=1)
        lives &= counts.max(axis=1) < 2
    better = 1 + 1e-3 * np.broadcast_to(trial.fit_means, trial.scores.shape)
    return weighed(trial, better, asked), asked.astype(np.float64)


def frugal_cascade(trial: Trial) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cheapest first; a logistic regression of embedding and reply length says whether an answer is right, and
    a threshold accepts it, chosen on fit prompts at 0.002 a call (after FrugalGPT, 2305.05176, whose scorer is a
    fine-tuned DistilBERT)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    order = by_size(trial)
    beliefs, sure = {}, {}
    for expert in order[:-1]:
        fit, test = (
            np.column_stack(
                [vectors, np.log1p(np.nan_to_num(table.output_tokens[:, expert])), answers(table)[:, expert] < 0]
            )
            for vectors, table in ((trial.fit_embeddings, trial.fit), (trial.test_embeddings, trial.test))
        )
        right = trial.fit.scores[:, expert] >= 0.5
        model = LogisticRegression(C=0.5, max_iter=200)
        sure[expert] = cross_val_predict(model, fit, right, cv=3, method="predict_proba")[:, 1]
        beliefs[expert] = model.fit(fit, right).predict_proba(test)[:, 1]

    def run(scores: NDArray[np.floating], known: Mapping[int, NDArray[np.float64]], bar: float) -> Any:
        served, asked = np.full(len(scores), order[-1]), np.zeros(scores.shape)
        lives = np.ones(len(scores), dtype=bool)
        for expert in order:
            asked[lives, expert] = 1
            passes = lives & (known[expert] >= bar) if expert in known else lives
            served[passes] = expert
            lives &= ~passes
        return scores[np.arange(len(scores)), served].astype(np.float64), asked

    def worth(bar: float) -> float:
        score, asked = run(trial.fit.scores, sure, bar)
        return float(score.mean() - 0.002 * asked.sum(axis=1).mean())

    best = max(np.linspace(0.1, 0.95, 18), key=worth)
    score, asked = run(trial.test.scores, beliefs, float(best))
    return score, asked


PUBLISHED: Mapping[str, Callable[[Trial], tuple[NDArray[np.float64], NDArray[np.float64]]]] = {
    "plurality": plurality,
    THREE: plurality_of_three,
    "naive Bayes vote": naive_bayes,
    "Dawid-Skene": dawid_skene,
    "agreement cascade": agreement_cascade,
    "FrugalGPT-like cascade": frugal_cascade,
}


def cached(case: Case, name: str, work: Path, make: Callable[[], Arms]) -> Arms:
    """Results of a run, from its file where there is one."""
    path = work / f"{case.name} {name}.npz".replace(" ", "_")
    if not path.exists():
        found = make()
        flat = {f"{arm}|{i}": part for arm, pair in found.items() for i, part in enumerate(pair)}
        np.savez_compressed(path, **flat)
    with np.load(path) as arrays:
        names = dict.fromkeys(key.rsplit("|", 1)[0] for key in arrays.files)
        return {arm: (arrays[f"{arm}|0"], arrays[f"{arm}|1"]) for arm in names}


def together(found: Sequence[Arms]) -> Arms:
    return {
        arm: (np.concatenate([arms[arm][0] for arms in found]), np.concatenate([arms[arm][1] for arms in found]))
        for arm in found[0]
    }


def lines_of(arms: Arms, sizes: NDArray[np.float64], rng: np.random.Generator) -> list[str]:
    """The table of one case. Differences are paired."""
    single, oracle, three = (arms[name][0] for name in ("best single", "oracle", THREE))
    lines = [
        "| arm | mean score | minus best single | minus plurality of three | gap closed | experts asked | active (B) |",
        "| --- " * 7 + "|",
    ]
    gap = float(oracle.mean() - single.mean())
    for name, (score, asked) in arms.items():
        draws = bootstrap_means(np.column_stack([score - single, oracle - single, score - three]), rng)
        least, most = percentile_interval(draws[:, 0] / draws[:, 1])
        gain = float((score - single).mean())
        lines.append(
            f"| {name} | {100 * score.mean():.1f} | {in_points(gain, draws[:, 0])} | "
            f"{in_points(float((score - three).mean()), draws[:, 2])} | "
            f"{100 * gain / gap:.1f}% ({100 * least:.1f} to {100 * most:.1f}) | {asked.sum(axis=1).mean():.2f} | "
            f"{(asked @ sizes).mean():.1f} |"
        )
    return lines


def in_points(value: float, draws: NDArray[np.float64]) -> str:
    low, high = percentile_interval(draws)
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def strong_lines(
    arms: Arms, weak: int, strong: int, scores: NDArray[np.float64], rng: np.random.Generator
) -> list[str]:
    """Two experts, or three: the share of strong calls, and of the weak one's gap to the strong one that is closed.
    `scores` (n, m) of the experts, of which `weak` and `strong` are numbers."""
    lines = ["| arm | strong calls | of the gap from weak to strong |", "| --- | --- | --- |"]
    low, high = scores[:, weak], scores[:, strong]
    for name, (score, asked) in arms.items():
        draws = bootstrap_means(np.column_stack([score - low, high - low]), rng)
        least, most = percentile_interval(draws[:, 0] / draws[:, 1])
        closed = (score - low).mean() / (high - low).mean()
        share = f"{100 * closed:.0f}% ({100 * least:.0f} to {100 * most:.0f})"
        lines.append(f"| {name} | {100 * asked[:, strong].mean():.0f}% | {share} |")
    return lines


def main(
    tables: Annotated[Path, typer.Option(help="file of named tables; their sources lie beside it")] = TABLES,
    outcomes: Annotated[Path | None, typer.Option(help="measure on this outcome table instead")] = None,
    only: Annotated[list[str] | None, typer.Option(help="names of tables; default: all")] = None,
    runs: Annotated[list[str] | None, typer.Option(help="test, fold 0, ...; default: all")] = None,
    work: Annotated[Path, typer.Option(help="folder for what was found, and embeddings")] = ROOT
    / "data"
    / "strategies",
) -> None:
    """Print a table of figures for every case: on the test split, and out of fold over all prompts."""
    work.mkdir(parents=True, exist_ok=True)
    for case in cases_of(tables) if outcomes is None else [Case(outcomes.name, str(outcomes.absolute()), ())]:
        if only and case.name not in only:
            continue
        table = read_outcomes(tables.parent / case.source, experts=sorted(case.experts) or None)
        sizes = np.array([table.active_params_b.get(name, np.nan) for name in table.experts])
        found, scores_of = {}, {}
        for name, (fit, test) in parts(table).items():
            if runs and name not in runs:
                continue
            found[name] = cached(case, name, work, partial(measured, case, fit, test, work / "embeddings"))
            scores_of[name] = test.scores.astype(np.float64)
            print(f"{case.name}, {name}: done", file=sys.stderr)
        groups = {"Test prompts": [n for n in found if n == "test"]}
        groups["All prompts, out of fold"] = [n for n in found if n != "test"]
        for heading, names in groups.items():
            if names:
                arms = together([found[n] for n in names])
                print(f"\n### {case.name}: {heading} ({len(arms['oracle'][0])})\n")
                print("\n".join(lines_of(arms, sizes, np.random.default_rng(0))))
                if case.name.startswith("pair"):
                    weak, strong = (table.experts.index(expert) for expert in PAIR)
                    scores = np.concatenate([scores_of[n] for n in names])
                    print("\n" + "\n".join(strong_lines(arms, weak, strong, scores, np.random.default_rng(0))))


if __name__ == "__main__":
    typer.run(main)
