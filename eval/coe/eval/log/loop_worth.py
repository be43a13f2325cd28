"""The worth of learning: what the routers that became live in a period changed, the value of that, and the cost of
exploration.

Shapes: n answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated

import numpy as np

from coe.base.errors import DataError, RouterError
from coe.base.money import money
from coe.cli.progress import Progress, silent
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.default_database import database_url_of
from coe.decision_log.read import NOT_OF_THE_MAP, read_records, read_rewards, read_router_events, why_dropped
from coe.decision_log.sql_engine import open_log
from coe.eval.report.numbers import counted
from coe.eval.report.page import InTable
from coe.fleet.router_registry import Registry
from coe.router.build import load_router
from coe.router.config.composition import load_config
from coe.router.pipeline import Router
from coe.router.types import GENERAL, DecisionReason, Metric, Record
from coe.training.feedback_bias import UNLIMITED, clusters
from coe.training.fit_inputs import RetrainRequest
from coe.training.learned_map import gain_over
from coe.training.resampling import bootstrap_sums, weighted_mean
from coe.training.retrain import map_changes
from coe.training.summary import in_points
from coe.training.types import question_of

WINDOW_DAYS = 30
MIN_EXPLORED = 10
"""Number of rated explored answers above which the cost of exploration is measured, not only predicted (ours)."""


def changes_text(changes: Mapping[str, str]) -> str:
    """Format changes (category -> `old to new`) for a table's cell."""
    return "; ".join(f"{name}: {move}" for name, move in changes.items()) or "none"


class RouterStep(Record):
    """A router that became live, and the categories that its map moves away from the previous one (`old expert to
    new expert`)."""

    at: float
    version: str
    changes: Annotated[dict[str, str], InTable("Changes", changes_text)]


class ExplorationCost(Record):
    """The cost of exploration, as mean loss of quality over all routed decisions. `predicted` uses what the router
    expected of the planned and the tried experts; `measure_cost` uses feedback, and is None with few rated explored
    answers. `extra_usd` is the total price of the tried experts above that of the planned ones."""

    n: int
    n_explored: int
    predicted: float
    measured: Metric | None
    extra_usd: float


class LoopWorth(Record):
    """Learning since a time, from router `before` to router `live`. `worth` is the mean quality gained per decision
    by current estimates, challengers included; `unknown` says why there is none."""

    since: float
    before: str
    live: str
    steps: tuple[RouterStep, ...] = ()
    worth: Metric | None = None
    unknown: str = ""
    exploration: ExplorationCost


def request_of(config: Path, data_dir: Path, end: datetime) -> RetrainRequest:
    """Build a request with the places of a data folder, for the `WINDOW_DAYS` up to a time."""
    return RetrainRequest(
        config=config,
        routers=data_dir / "routers",
        outcomes=data_dir / "outcomes",
        database_url=database_url_of(data_dir),
        since=(end - timedelta(days=WINDOW_DAYS)).timestamp(),
    )


def measure_loop(request: RetrainRequest, now: datetime, progress: Progress = silent) -> LoopWorth:
    """Compare the live router with the one that was live at `request.since`, by the live one's estimates.

    Raises:
        DataError, StoreError: the log cannot be read.
    """
    progress("reading what exploring cost")
    with open_log(request.database_url) as connection:
        records = takewhile(lambda record: record.at <= now.timestamp(), read_records(connection, request.since))
        cost = exploration_cost(records, read_rewards(connection, of_tasks=True))
        events = read_router_events(connection, 0.0, now.timestamp() + 1)
    promoted = [(float(row["at"]), str(row["version"])) for row in events if row["event"] == "promoted"]
    first = max((i for i, (at, _) in enumerate(promoted) if at <= request.since), default=0)
    served = promoted[first:] or [(0.0, "none")]
    found = LoopWorth(since=request.since, before=served[0][1], live=served[-1][1], exploration=cost)
    try:
        if not promoted:
            raise DataError("the log names no router that was live")
        if len(served) == 1:
            raise DataError(f"router {found.live} was live all of the time")
        return judge_loop(found, served, request)
    except RouterError as error:
        return found.model_copy(update={"unknown": str(error)})


def judge_loop(found: LoopWorth, served: list[tuple[float, str]], request: RetrainRequest) -> LoopWorth:
    """Add the changes and their worth; raise RouterError if a router cannot be loaded any more."""
    config, registry = load_config(request.config), Registry(request.routers)
    routers: dict[str, Router] = {}
    for _, version in served:
        encoder = next(iter(routers.values())).encoder if routers else None
        routers[version] = routers.get(version) or load_router(config, registry.folder(version), encoder)
    steps = tuple(
        RouterStep(at=at, version=version, changes=moves(routers[old], routers[version]))
        for (_, old), (at, version) in pairwise(served)
        if moves(routers[old], routers[version])
    )
    live, before = routers[found.live], routers[found.before].expert_of()
    worth = gain_over(live, [before.get(name, before[GENERAL]) for name in live.categories])
    return found.model_copy(update={"steps": steps, "worth": worth})


def moves(old: Router, new: Router) -> dict[str, str]:
    """Return the categories whose expert differs between two routers, each with `old to new`."""
    return {change.category: f"{change.live} to {change.candidate}" for change in map_changes(old, new)}


def exploration_cost(records: Iterable[DecisionRecord], rewards: Mapping[str, float]) -> ExplorationCost:
    """Sum the cost over the routed decisions. A rated one counts with the doubly robust estimate of the planned
    expert's reward there, less the earned reward (Dudik et al. 2011)."""
    sums = np.zeros(4)  # decisions, those explored, quality lost, USD above the plan
    rated: list[tuple[float, int, str, bool]] = []
    for record in records:
        decision = record.decision
        if decision is None or record.is_probe or decision.reason in NOT_OF_THE_MAP:
            continue
        quality = dict(zip(decision.eligible, decision.predicted_quality, strict=False))
        price = dict(zip(decision.eligible, decision.predicted_cost_usd, strict=False))
        planned, tried = next(iter(decision.ranking), decision.expert), decision.expert
        is_explored = decision.reason is DecisionReason.EXPLORED
        lost = is_explored * (quality.get(planned, 0.0) - quality.get(tried, 0.0))
        sums += 1, is_explored, lost, is_explored * (price.get(tried, 0.0) - price.get(planned, 0.0))
        if why_dropped(record, rewards) is None:
            weight = 0.0 if is_explored else 1.0 / decision.propensity
            value = lost + (weight - 1.0) * (rewards[record.decision_id] - quality.get(tried, 0.0))
            rated.append((value, question_of(record), record.key_id or "", is_explored))
    n, n_explored, lost, extra_usd = sums.tolist()
    return ExplorationCost(
        n=int(n),
        n_explored=int(n_explored),
        predicted=lost / max(n, 1),
        measured=measure_cost(rated),
        extra_usd=extra_usd,
    )


def measure_cost(rated: Sequence[tuple[float, int, str, bool]]) -> Metric | None:
    """Average the value of the rated decisions (value, question, key, is explored). The interval resamples keys, or
    questions if one key asked all. None with fewer than `MIN_EXPLORED` explored ones."""
    if sum(is_explored for *_, is_explored in rated) < MIN_EXPLORED:
        return None
    values, questions, keys, _ = zip(*rated, strict=True)
    number = {name: i for i, name in enumerate(dict.fromkeys(keys))}
    key = np.array([number[name] if len(number) > 1 else UNLIMITED for name in keys], dtype=np.int64)
    columns = np.column_stack([values, np.ones(len(values))])
    groups = clusters(np.array(questions, dtype=np.int64), key)
    return bootstrap_sums(columns, groups, weighted_mean, np.random.default_rng(0))[0]


def loop_sentences(loop: LoopWorth) -> tuple[str, str]:
    """Describe the changes by retraining with their worth, and the cost of exploration."""
    changed = sorted({category for step in loop.steps for category in step.changes})
    where = f"changed the expert of {', '.join(changed)}" if changed else "changed no category's expert"
    learned = f"Nothing was learned: {loop.unknown}."
    if loop.worth is not None:
        worth = f"{in_points(loop.worth, '+z,.1f')} points of quality a decision"
        learned = f"Learning {where}. What it is worth, with challengers that answer already: {worth}."
    cost = loop.exploration
    routed = counted(cost.n, "routed decision", "routed decisions")
    if not cost.n_explored:
        return learned, f"Exploring cost nothing: none of {routed} was explored."
    measured = f" ({in_points(cost.measured, '+z,.1f')} by feedback)" if cost.measured else ""
    return learned, (
        f"Exploring {cost.n_explored:,} of {routed} cost {100 * cost.predicted:.2f} points "
        f"a decision by prediction{measured}; by list prices it {'saved' if cost.extra_usd < 0 else 'cost'} "
        f"{money(abs(cost.extra_usd))} in all."
    )
