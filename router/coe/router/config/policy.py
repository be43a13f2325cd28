"""An entry of `policies:` in experts.yaml: budgets, a floor of quality, exploration, pins, a strategy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from pydantic import ConfigDict, Field, field_validator

from coe.base.errors import InfeasibleBudgetError
from coe.router.section import Name, Section
from coe.router.strategies.agree import StrategyName


class Budgets(Section):
    """Upper bounds on the map; None leaves one open. Averages are over the traffic's mix of categories."""

    model_config = ConfigDict(allow_inf_nan=False)
    active_params_b: float | None = Field(default=None, gt=0, description="mean active parameters per query, billions")
    hosted_params_b: float | None = Field(default=None, gt=0, description="parameters kept in memory, billions")
    cost_usd: float | None = Field(default=None, ge=0, description="mean cost per query, USD")
    latency_ms: float | None = Field(default=None, gt=0, description="mean latency per query, milliseconds")

    @property
    def averages(self) -> dict[str, float]:
        """Return the budgets that bound a mean over all queries."""
        return self.model_dump(exclude_none=True, exclude={"hosted_params_b"})


BEST = "best"
"""The reference of a floor that is measured from the best single expert."""


class QualityFloor(Section):
    """The least quality of a plan, as a distance from that of something else."""

    within: float = Field(ge=-1, le=1, description="predicted quality that the plan may lose; below 0: that it gains")
    of: Name = Field(description="an expert, `best` for the best single one, or a policy without a floor")

    @property
    def words(self) -> str:
        return f"within {points_in_words(self.within)} of {self.of}"


def points_in_words(share: float) -> str:
    return f"{100 * share:g} {'point' if share == 0.01 else 'points'}"


QUALITY_FLOOR = "quality_floor"
"""Name of a floor among the limits of a program: an upper bound of the quality's negative."""


class Floor(NamedTuple):
    """The mean quality that a plan is measured from, how much less it may have, and the expert or policy with it."""

    target: float
    within: float
    of: str

    @property
    def least(self) -> float:
        return self.target - self.within

    def refused(self, most: float) -> InfeasibleBudgetError:
        """Return the error for a best plan of that quality; its allowed distance is rounded up to be feasible."""
        smallest = ceil(1e6 * (self.target - most) - 0.1) / 1e6
        return InfeasibleBudgetError(f"{QUALITY_FLOOR}.within", self.within, smallest)


GAIN_FOR_DOUBLE_COST = 0.2
"""Gain of quality that pays for a doubled mean cost, and half of it for half (ours)."""


UNKNOWN_LANGUAGES = "unknown_languages"
"""A pin that is of no category, but of queries in other languages than those of the labelled queries."""


class PolicyConfig(Section):
    """A named way to turn probabilities into a decision; clients ask for it as `auto:<name>`."""

    budgets: Budgets = Budgets()
    quality_floor: QualityFloor | None = Field(
        default=None, description="serve by the cheapest plan of at least this quality; None: by the best one"
    )
    exploration: float = Field(
        default=0.0, ge=0, le=1, description="mean loss of quality that trying other experts may cost; `off` tries none"
    )
    pins: dict[str, str] = Field(
        default_factory=dict,
        description="category, or `unknown_languages` -> expert; the file wins over the map",
    )
    strategy: StrategyName = StrategyName.SINGLE
    max_calls: float | None = Field(default=None, gt=1, description="mean experts asked per query; beside a strategy")
    client_params: bool = Field(default=False, description="fields of a request replace the `params` of its expert")

    @field_validator("exploration", mode="before")
    @classmethod
    def is_a_share(cls, value: object) -> object:
        """Read `0.5%`, and `off`, which is false in YAML."""
        if value is False or value == "off":
            return 0.0
        if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?%", value.strip()):
            return float(value.strip().rstrip("%")) / 100
        if value is True or not isinstance(value, int | float):
            raise ValueError("must be 'off' or a budget, such as 0.5%")
        return value

    def pin_numbers(self, rows: Sequence[str], experts: Sequence[str]) -> dict[int, int]:
        """Map the number of a row to that of its pinned expert, if both are in the router."""
        return {
            rows.index(row): experts.index(expert)
            for row, expert in self.pins.items()
            if row in rows and expert in experts
        }

    @property
    def exploration_words(self) -> str:
        return f"at a mean loss of at most {self.exploration:.2%} of quality" if self.exploration else "off"
