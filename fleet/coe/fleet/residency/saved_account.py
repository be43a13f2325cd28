"""The account of a scheduler as text, so that another process can continue it."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coe.base.json_text import from_json, to_json
from coe.fleet.residency.demand import ROWS_PER_CATEGORY, CategoryDemand
from coe.fleet.residency.policies import Regret
from coe.fleet.residency.scheduler import Scheduler

logger = logging.getLogger(__name__)


def account_text(scheduler: Scheduler) -> str:
    """The demand that a policy remembers, and the times of changes as they were measured."""
    policy = scheduler.policy
    demand = policy.demand.categories if isinstance(policy, Regret) else {}
    return to_json(
        {
            "engines": [each.name for each in scheduler.residents],
            "times": {each.name: dataclasses.asdict(each.times) for each in scheduler.residents},
            "categories": {name: plain(each) for name, each in demand.items()},
        }
    ).decode()


def take_account(scheduler: Scheduler, text: str) -> None:
    """Goes on with an account. Engines that it does not know begin without one; what is damaged is left out."""
    try:
        saved = from_json(text.encode())
        times, engines = dict(saved["times"]), list(saved["engines"])
        categories = {name: category_of(each, engines, scheduler) for name, each in saved["categories"].items()}
        for name in scheduler.index.keys() & times.keys():
            scheduler.measured(name, **{key: float(seconds) for key, seconds in times[name].items()})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        logger.warning("residency: the account that was kept cannot be read (%s)", type(error).__name__)
        return
    if isinstance(scheduler.policy, Regret):
        scheduler.policy.demand.categories.update(categories)


def plain(category: CategoryDemand) -> dict[str, Any]:
    """Fields of a category; of numpy's arrays as lists, with None where nothing is known."""
    rows = [[float(each) for each in row] for row in category.rows]
    by_hour = [None if np.isnan(each) else float(each) for each in category.by_hour]
    return vars(category) | {"rows": rows, "by_hour": by_hour}


def category_of(values: Mapping[str, Any], engines: Sequence[str], scheduler: Scheduler) -> CategoryDemand:
    """A category with its qualities in the order of the engines of now, 0 for new ones."""
    places = [engines.index(each.name) if each.name in engines else None for each in scheduler.residents]
    rows = [np.array([0.0 if place is None else float(row[place]) for place in places]) for row in values["rows"]]
    by_hour = np.array([np.nan if each is None else float(each) for each in values["by_hour"]])
    known = {field.name for field in dataclasses.fields(CategoryDemand)}
    others = {key: value for key, value in values.items() if key in known}
    return CategoryDemand(**(others | {"rows": deque(rows, maxlen=ROWS_PER_CATEGORY), "by_hour": by_hour}))
