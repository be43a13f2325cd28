"""Models that answers name, and what is a change of one. Pure.

Engines answer with full names, names of adapters or dated snapshots, so what counts is not a difference from what was
asked but one from what the expert answered with before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from coe.decision_log.decision_record import DecisionRecord

DAY = re.compile(r"[-@]\d{4}-?\d{2}-?\d{2}$")


@dataclass(frozen=True)
class ModelChange:
    """An expert's answers name model `after` from Unix time `at` on, and named `before` until then."""

    expert: str
    at: float
    before: str
    after: str


def undated(model: str) -> str:
    """The name without the date of a snapshot: gpt-4o of gpt-4o-2024-08-06."""
    return DAY.sub("", model)


def is_change(before: str, model: str) -> bool:
    """Returns whether a name means another model. The undated name of one says less, not something else: the pieces of
    litellm's streams name the alias where its whole answers name the snapshot."""
    return model != before and undated(model) != before and undated(before) != model


@dataclass
class ModelHistory:
    """Follows the log in order of time. `last` is the last change of each expert."""

    now: dict[str, str] = field(default_factory=dict)
    last: dict[str, ModelChange] = field(default_factory=dict)
    changes: list[ModelChange] = field(default_factory=list)

    def add(self, record: DecisionRecord) -> None:
        model, expert = record.served_model, record.served_expert
        if model is None or expert is None:
            return
        before = self.now.get(expert)
        if before is not None and is_change(before, model):
            self.last[expert] = ModelChange(expert, record.at, before, model)
            self.changes.append(self.last[expert])
        if before is None or undated(before) != model:
            self.now[expert] = model
