"""Models that answer for experts, as their answers say: changes are told, and billed at the price of what serves."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from decision_log.served_models import is_change, undated
from fleet.price_list import listed_facts
from gateway.metrics import Metrics
from router.expert_config import ExpertConfig

logger = logging.getLogger(__name__)


class ServedModels:
    """Made anew with each configuration. `now` is the name that each expert answered with last, None before the first
    answer; `entries` are those of experts.yaml at the prices of what serves."""

    def __init__(self, experts: Mapping[str, ExpertConfig], metrics: Metrics) -> None:
        self._experts, self._metrics = experts, metrics
        self.entries: dict[str, ExpertConfig] = dict(experts)
        self.now: dict[str, str | None] = dict.fromkeys(experts)

    def heard(self, expert: str, model: str) -> None:
        """An answer of the expert names another model than the one before."""
        before = self.now[expert]
        if before is not None and undated(before) == model:
            return
        self.now[expert] = model
        self.entries[expert] = priced(self._experts[expert], model)
        if before is not None and is_change(before, model):
            self._metrics.model_changes.labels(expert).inc()
            logger.warning(
                "expert %s: its answers name model %r where they named %r; what was learned before counts no more",
                *(expert, model, before),
            )


def priced(entry: ExpertConfig, model: str) -> ExpertConfig:
    """The entry at the list price of a model that serves in the place of its own: one that litellm's table knows under
    another name, at another price."""
    is_same = undated(entry.model.rpartition("/")[2]) == undated(model.rpartition("/")[2])
    if is_same or not (entry.price_in_per_m_usd or entry.price_out_per_m_usd):
        return entry
    asked, served = (listed_prices(name) for name in (entry.model, model))
    return entry.model_copy(update=served) if asked and served and asked != served else entry


def listed_prices(model: str) -> dict[str, object]:
    return {name: value for name, value in listed_facts(model).items() if name.startswith("price_")}
