"""One pass over the log's answers: how often such answers get feedback, and what each piece of it therefore weighs."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.types import ImplicitKind, RoutingDecision
from training.feedback_bias import Agreement, ReplyBin, ReplyRates, agreement


@dataclass
class Replies:
    """Counts of every answer; of those with feedback (n) also bin and reward, in the order in which they were added."""

    rates: ReplyRates = field(default_factory=ReplyRates)
    bins: list[ReplyBin] = field(default_factory=list)
    rewards: array[float] = field(default_factory=lambda: array("d"))
    with_signal: dict[ImplicitKind, int] = field(default_factory=lambda: dict.fromkeys(ImplicitKind, 0))
    _known: dict[ReplyBin, ReplyBin] = field(default_factory=dict)

    def add(self, decision: RoutingDecision, signals: tuple[ImplicitKind, ...], reward: float | None) -> None:
        """One answer that the router chose the expert of; `reward` is None without feedback."""
        made = ReplyBin(decision.category, decision.expert, signals)
        reply_bin = self._known.setdefault(made, made)
        self.rates.add(reply_bin, has_reply=reward is not None)
        for kind in signals:
            self.with_signal[kind] += 1
        if reward is not None:
            self.bins.append(reply_bin)
            self.rewards.append(reward)

    def reward_array(self) -> NDArray[np.float64]:
        """(n,) in [0, 1]."""
        return np.array(self.rewards, dtype=np.float64)

    def agreements(self) -> dict[ImplicitKind, Agreement]:
        """Of every kind of signal, on the answers that have feedback."""
        rewards = self.reward_array()
        found = {}
        for kind in ImplicitKind:
            has_signal = np.array([kind in each.signals for each in self.bins], dtype=bool)
            found[kind] = agreement(kind, self.with_signal[kind], rewards[has_signal], rewards[~has_signal])
        return found

    def weights(self) -> NDArray[np.float64]:
        """(n,) how many answers each reply stands for, relative to the average reply. Only signals that agree with
        feedback tell answers apart."""
        usable = {kind for kind, found in self.agreements().items() if found.is_usable}
        rates = self.rates.keeping(usable)
        weight_of = {each: rates.weight(each.keeping(usable)) for each in self._known}
        return np.array([weight_of[each] for each in self.bins], dtype=np.float64)
