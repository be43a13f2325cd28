"""An entry of `policies:` in experts.yaml: budgets, exploration, pins, a strategy."""

from __future__ import annotations

import re

from pydantic import ConfigDict, Field, field_validator

from coe.router.section import Section
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
        """Those on a mean of all queries."""
        return self.model_dump(exclude_none=True, exclude={"hosted_params_b"})


GAIN_FOR_DOUBLE_COST = 0.2
"""Gain of quality that pays for a doubled mean cost, and half of it for half (ours)."""


UNKNOWN_LANGUAGES = "unknown_languages"
"""A pin that is of no category, but of queries in other languages than those of the labelled queries."""


class PolicyConfig(Section):
    """A named way to turn probabilities into a decision; clients ask for it as `auto:<name>`."""

    budgets: Budgets = Budgets()
    exploration: float = Field(
        default=0.0, ge=0, le=1, description="mean loss of quality that trying other experts may cost; `off` tries none"
    )
    pins: dict[str, str] = Field(
        default_factory=dict,
        description="category, or `unknown_languages` -> expert; the file wins over the map",
    )
    strategy: StrategyName = StrategyName.SINGLE
    max_calls: float | None = Field(default=None, gt=1, description="mean experts asked per query; beside a strategy")

    @field_validator("exploration", mode="before")
    @classmethod
    def is_a_share(cls, value: object) -> object:
        """Reads `0.5%`, and `off`, which is false in YAML."""
        if value is False or value == "off":
            return 0.0
        if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?%", value.strip()):
            return float(value.strip().rstrip("%")) / 100
        if value is True or not isinstance(value, int | float):
            raise ValueError("must be 'off' or a budget, such as 0.5%")
        return value

    @property
    def exploration_words(self) -> str:
        return f"at a mean loss of at most {self.exploration:.2%} of quality" if self.exploration else "off"
