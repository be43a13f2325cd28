"""Answers of several experts to one request, in columns beside those of the log (`training.log_table`)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from decision_log.decision_record import CallState, DecisionRecord
from router.types import IntArray
from training.types import NO_ANSWER, NOT_COMPARED


@dataclass
class Panels:
    """Requests that a strategy asked several experts for, a column each. Calls have the number of their panel.

    `answer` is the number of the answer, NO_ANSWER for none; `served` that of the one that was served; `reward` its
    feedback, NaN for none.
    """

    categories: dict[str, int] = field(default_factory=dict)
    experts: dict[str, int] = field(default_factory=dict)
    category: array[int] = field(default_factory=lambda: array("i"))
    served: array[int] = field(default_factory=lambda: array("i"))
    reward: array[float] = field(default_factory=lambda: array("d"))
    at: array[float] = field(default_factory=lambda: array("d"))
    panel: array[int] = field(default_factory=lambda: array("i"))
    expert: array[int] = field(default_factory=lambda: array("i"))
    answer: array[int] = field(default_factory=lambda: array("i"))

    def __len__(self) -> int:
        return len(self.category)

    def add(self, record: DecisionRecord, reward: float | None) -> None:
        """One request that was answered; nothing of one that no two experts answered."""
        assert record.decision is not None
        assert record.strategy is not None
        calls = [c for c in record.strategy.calls if c.state is CallState.ANSWERED and not c.is_judge]
        if len(calls) < 2 or not record.strategy.is_settled:
            return
        by_expert = {call.expert: NO_ANSWER if call.answer is None else call.answer for call in calls}
        self.category.append(self.categories.setdefault(record.decision.category, len(self.categories)))
        self.served.append(by_expert.get(record.served_expert or "", NO_ANSWER))
        self.reward.append(np.nan if reward is None else reward)
        self.at.append(record.at)
        for name, answer in by_expert.items():
            self.panel.append(len(self.category) - 1)
            self.expert.append(self.experts.setdefault(name, len(self.experts)))
            self.answer.append(answer)

    def row_in(self, rows: Sequence[str]) -> IntArray:
        """(n,) row of each panel's category; the last one, `general`, for a category that has none."""
        numbers = {name: i for i, name in enumerate(rows)}
        found = np.array([numbers.get(name, len(rows) - 1) for name in self.categories], dtype=np.int64)
        return found[np.array(self.category, dtype=np.int64)] if len(self) else np.zeros(0, dtype=np.int64)

    def keys(self, experts: Sequence[str]) -> IntArray:
        """(n, m) what each of some experts answered; NOT_COMPARED for who was not asked."""
        found = np.full((len(self), len(experts)), NOT_COMPARED, dtype=np.int64)
        numbers = {name: i for i, name in enumerate(experts)}
        column = np.array([numbers.get(name, -1) for name in self.experts], dtype=np.int64)
        if len(self):
            column = column[np.array(self.expert, dtype=np.int64)]
            known = column >= 0
            found[np.array(self.panel)[known], column[known]] = np.array(self.answer, dtype=np.int64)[known]
        return found
