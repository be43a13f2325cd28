"""Answers to one request that a judge compared in pairs: evidence beside what people say (docs/feedback.md). Pure.

Rows 2i and 2i + 1 of `LogTable.judged` are a pair: the answer that the client got, and the other one. Their rewards say
how far each is preferred, and add up to 1. Its key is the client's, who could tell a judge what to prefer, and its
weight that key's, at most 1.

Shapes: n rows, k + 1 rows of the map, m experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coe.router.types import BoolArray, Float64Array, IntArray
from coe.training.feedback_bias import counted_share
from coe.training.log_answers import LoggedChoices
from coe.training.log_table import LogTable

HALF = 0.5
"""Answers that one of a pair counts as: what errs for one errs against the other, so the difference of n pairs is as
uncertain as that of n / 2 answers of each."""


@dataclass(frozen=True)
class JudgedGains:
    """(n,) by how much a candidate's answer was preferred to the live router's, from -1 to 1, times the pair's weight;
    when, and whose key."""

    gain: Float64Array
    at: Float64Array
    key: IntArray

    def among(self, gain: Float64Array, log: LogTable) -> tuple[Float64Array, IntArray]:
        """These and those (m,) of a log's answers, and their keys, in order of time."""
        order = np.argsort(np.concatenate([log.at, self.at]), kind="stable")
        return np.concatenate([gain, self.gain])[order], np.concatenate([log.key, self.key])[order]


@dataclass(frozen=True)
class JudgedPairs:
    """Pairs with what each of two routers, the live one and its candidate, wants for the request of each row."""

    log: LogTable
    choices: Sequence[LoggedChoices]

    def gains(self, experts: Sequence[str], newcomers: IntArray) -> JudgedGains:
        """Gains of the candidate, by the pairs of just what both want, where it wants a new expert (its number)."""
        logged = self.log.expert_in(tuple(experts))
        live, candidate = (one.match(logged).reshape(-1, 2) for one in self.choices)
        told = live.any(axis=1) & candidate.any(axis=1) & (live != candidate).any(axis=1)
        told &= np.isin(self.choices[1].chosen[::2], newcomers)
        gain = ((candidate - live) * self.log.reward.reshape(-1, 2)).sum(axis=1) * self.log.weight[::2]
        return JudgedGains(gain[told], self.log.at[::2][told], self.log.key[::2][told])


def together(kept: BoolArray) -> BoolArray:
    """(n,) rows of pairs of which both are kept."""
    return np.repeat(kept.reshape(-1, 2).all(axis=1), 2)


def preferences(
    judged: LogTable, row: IntArray, expert: IntArray, known: Float64Array, counts: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """(n,) what each answer of a pair is worth, on the scale of what is known of their experts, and as how many answers
    it counts: less where a key says too much.

    A pair tells a difference, so its level is the mean of what is known of both.

    Args:
        row: (n,) of the map; `expert` (n,) columns.
        known: (k+1, m) qualities by all else, from so many answers (`counts`).
    """
    level = np.repeat(known[row, expert].reshape(-1, 2).mean(axis=1), 2)
    weight = HALF * judged.weight
    share = counted_share(row, judged.key, weight, counts.sum(axis=1), judged.max_key_share)
    return level + judged.reward - 0.5, weight * share
