"""The simulated history as the log that `coe retrain` reads.

Shapes: n answers, t decisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.loop_fleet import Float64Array, IntArray
from coe.router.config.feedback import FeedbackConfig
from coe.training.feedback_bias import ReplyBin, ReplyRates
from coe.training.log_table import LogTable

MAX_KEY_SHARE = FeedbackConfig().max_key_share


def logged(
    columns: Mapping[str, Float64Array],
    rows: IntArray,
    categories: tuple[str, ...],
    experts: tuple[str, ...],
    **more: Any,
) -> LogTable:
    """Answers of these decisions (n,). `columns` (t,) are those of the history, `more` columns of the log."""
    names, n = ("expert", "category", "key"), len(rows)
    expert, category, key = (columns[name][rows].astype(np.int64) for name in names)
    usual: dict[str, Any] = {
        "categories": categories,
        "experts": experts,
        "category": category.astype(np.int32),
        "expert": expert.astype(np.int32),
        "weight": np.ones(n),
        "at": rows.astype(np.float64),
        "key": key,
        "planned": expert.astype(np.int32),
        "challenger": np.full(n, -1, dtype=np.int32),
        "planned_chance": np.ones(n),
        "challenger_chance": np.zeros(n),
        "estimated_gain": np.zeros(n),
        "is_failure": np.zeros(n, dtype=bool),
        "max_key_share": MAX_KEY_SHARE,
    }
    return LogTable(**usual | more)


def judged_log(
    columns: Mapping[str, Float64Array],
    judged: Sequence[Float64Array],
    categories: tuple[str, ...],
    experts: tuple[str, ...],
) -> LogTable:
    """What a judge said: blocks of decisions, experts that answered beside those that served, and verdicts."""
    number, other, value = np.concatenate(judged, axis=1)
    at = number.astype(np.int64)
    pairs = np.stack([columns["expert"][at], other], axis=1).ravel().astype(np.int32)
    said = np.stack([value, 1.0 - value], axis=1).ravel()
    return logged(columns, at.repeat(2), categories, experts, expert=pairs, reward=said)


def reply_weights(category: IntArray, expert: IntArray, rated: IntArray) -> Float64Array:
    """(len(rated),) how many of the answers (n,) each rated one represents, with mean 1."""
    cells = list(zip(category.tolist(), expert.tolist(), strict=True))
    own, rates = [cells[i] for i in rated], ReplyRates()
    answers, replies = Counter(cells), Counter(own)
    for cell, n in answers.items():
        rates.count(ReplyBin(*map(str, cell)), n, replies[cell])
    weight = {cell: rates.weight(ReplyBin(*map(str, cell))) for cell in replies}
    found = np.array([weight[cell] for cell in own])
    return found / found.mean() if len(found) else found
