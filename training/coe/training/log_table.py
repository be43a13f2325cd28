"""The decision log in columns. A million answers take some tens of megabytes, because texts and vectors stay in SQL.

`read_log_table` reads every decision once and stores numbers. Shapes: n answers with a reward.
"""

from __future__ import annotations

import hashlib
import math
import sys
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.cli.progress import Progress, silent
from coe.decision_log.decision_record import DecisionRecord, ModelChange, ModelHistory
from coe.decision_log.read import (
    ASKED_BY_COE,
    count_swapped_pairs,
    has_failed,
    implicit_kinds,
    read_judged_grades,
    read_preferences,
    read_reasked,
    read_records,
    read_rewards,
    why_dropped,
)
from coe.decision_log.sql_engine import open_log
from coe.router.config.feedback import FeedbackConfig
from coe.router.types import BoolArray, Float64Array, IntArray
from coe.training.expert_map import TrafficTokens
from coe.training.feedback_bias import UNLIMITED, Replies, judge_agreements

REPORT_EVERY = 10_000
NOTHING_TO_WEIGH = "failed, and counts for nothing: no answer has feedback to weigh it against, or its key weighs 0"
UNTRUSTED = "pairs that {} compared, whose grades do not surely follow what people say"
DEFAULT_FEEDBACK = FeedbackConfig()


@dataclass(frozen=True)
class LogTable:
    """Answers with a reward and failures, in order of time. All arrays have shape (n,).

    `category` and `expert` number `categories` and `experts`; `reward` is in [0, 1]. `planned` would have served
    without exploration, with probability `planned_chance`. `challenger` (-1: none) is the most likely other expert,
    with `challenger_chance`. `estimated_gain` is its estimated gain over `planned`. `weight` is the number of answers
    represented, times the weight of the key that gave the feedback (mean 1). `key` numbers that key. It is `UNLIMITED`
    if `max_key_share` does not bound its share. `is_failure`: the expert failed, a reward of 0 without feedback.

    `traffic` counts the routed queries per category (the map's mass), `dropped` the decisions left out, by reason.
    `n_rows` counts the decisions read, without coe's own probes. `tokens` are those of the traffic
    (training.expert_map). `model_changes` has the last change of the model behind each expert. `judged` has the pairs
    of answers that a judge compared (training.judged_pairs).
    """

    categories: tuple[str, ...]
    experts: tuple[str, ...]
    category: NDArray[np.int32]
    expert: NDArray[np.int32]
    reward: Float64Array
    weight: Float64Array
    at: Float64Array
    key: IntArray
    is_failure: BoolArray
    planned: NDArray[np.int32]
    challenger: NDArray[np.int32]
    planned_chance: Float64Array
    challenger_chance: Float64Array
    estimated_gain: Float64Array
    max_key_share: float = 1.0
    traffic: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    n_rows: int = 0
    tokens: TrafficTokens = field(default_factory=TrafficTokens)
    fingerprint: str = ""
    model_changes: tuple[ModelChange, ...] = ()
    judged: LogTable | None = None

    def __len__(self) -> int:
        return len(self.category)

    def rows(self, keep: BoolArray | IntArray) -> LogTable:
        """Select answers by a mask (n,) or row numbers; counts over all decisions stay."""
        return replace(self, **{name: getattr(self, name)[keep] for name in ROW_COLUMNS})

    def category_in(self, names: tuple[str, ...]) -> IntArray:
        """Return the number of each answer's category among other names, (n,); -1 if it is not among them."""
        return renumber(self.category, self.categories, names)

    def expert_in(self, names: tuple[str, ...]) -> IntArray:
        """Return the number of each answer's expert among other names, (n,); -1 if it is not among them."""
        return renumber(self.expert, self.experts, names)

    def planned_in(self, names: tuple[str, ...]) -> IntArray:
        """Return the number of each answer's planned expert among other names, (n,); -1 if it is not among them."""
        return renumber(self.planned, self.experts, names)

    def challenger_in(self, names: tuple[str, ...]) -> IntArray:
        """Return the number of each answer's `challenger` among other names, (n,); -1 if it is not among them."""
        return np.where(self.challenger < 0, -1, renumber(self.challenger, self.experts, names))


ROW_COLUMNS = tuple(each.name for each in fields(LogTable) if "Array" in str(each.type))


def renumber(values: NDArray[np.int32], own: tuple[str, ...], names: tuple[str, ...]) -> IntArray:
    """Convert numbers of `own` to numbers of `names`; -1 if a name is missing."""
    number = {name: i for i, name in enumerate(names)}
    index = np.array([number.get(name, -1) for name in own], dtype=np.int64)
    return index[values] if len(own) else np.zeros(0, dtype=np.int64)


COLUMN_CODES = dict(category="i", expert="i", reward="d", at="d", is_failure="b")
COLUMN_CODES |= dict(planned="i", challenger="i", planned_chance="d", challenger_chance="d", estimated_gain="d")
"""Column -> type code of `array`, its final width."""


@dataclass
class Columns:
    """Columns that grow row by row; names are numbered in order of appearance. `key_weight` is how much the feedback
    of the row's key counts."""

    categories: dict[str, int] = field(default_factory=dict)
    experts: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=lambda: {name: array(code) for name, code in COLUMN_CODES.items()})
    keys: list[str] = field(default_factory=list)
    key_weight: array[float] = field(default_factory=lambda: array("d"))

    def add(self, record: DecisionRecord, reward: float | None, key_weight: float, expert: str = "") -> None:
        """Add a decision with its reward, None if the expert failed; `expert`: another one that answered it as well."""
        decision = record.decision
        assert decision is not None, "a row without a decision has no reward"
        category = self.categories.setdefault(decision.category, len(self.categories))
        number = self.number_of(expert or decision.expert)
        chances = dict(zip(decision.eligible, decision.eligible_probs, strict=False))
        planned = next(iter(decision.ranking), decision.expert)
        challenger = max((name for name in chances if name != planned), key=chances.__getitem__, default="")
        quality = dict(zip(decision.eligible, decision.predicted_quality, strict=False))
        found = (
            chances.get(planned, 0.0),
            chances.get(challenger, 0.0),
            quality.get(challenger, 0.0) - quality.get(planned, 0.0),
        )
        both = (self.number_of(planned), self.number_of(challenger) if found[1] > 0 else -1)
        row = (category, number, reward or 0.0, record.at, reward is None)
        for column, value in zip(self.numbers.values(), (*row, *both, *found), strict=True):
            column.append(value)
        self.keys.append(sys.intern(record.key_id or ""))
        self.key_weight.append(key_weight)

    def number_of(self, expert: str) -> int:
        return self.experts.setdefault(expert, len(self.experts))

    def weights(self, replies: Replies) -> Float64Array:
        """Return weights of rows by how rarely such an answer gets feedback, relative to the average reply, and by its
        key.

        A reply represents the unrated answers like it. A failure is always seen, so it represents only itself. Its
        weight is the share of answers that got a reply. That is 0 if none did, since nothing is known then about
        successful answers.
        """
        weight = np.full(len(self.keys), replies.rates.overall)
        weight[~np.array(self.numbers["is_failure"], dtype=bool)] = replies.weights()
        return np.asarray(weight * np.array(self.key_weight), dtype=np.float64)

    def table(self, weight: Float64Array, limited_keys: Mapping[str, int], max_key_share: float) -> LogTable:
        """Build the table of the columns in order of time; `limited_keys` numbers the keys whose share is limited."""
        columns: dict[str, Any] = {name: np.array(values) for name, values in self.numbers.items()}
        columns["is_failure"] = columns["is_failure"].astype(bool)
        table = LogTable(
            categories=tuple(self.categories),
            experts=tuple(self.experts),
            weight=weight,
            key=np.array([limited_keys.get(name, UNLIMITED) for name in self.keys], dtype=np.int64),
            max_key_share=max_key_share,
            **columns,
        )
        return table.rows(np.argsort(table.at, kind="stable"))


def read_log_table(
    database_url: str,
    *,
    since: float = 0.0,
    feedback: FeedbackConfig = DEFAULT_FEEDBACK,
    known: Mapping[str, Collection[str]] = MappingProxyType({}),
    progress: Progress = silent,
) -> LogTable:
    """Read decisions and feedback from SQL, a page at a time.

    Args:
        since: Unix seconds; older decisions are not read.
        feedback: section of experts.yaml: how much a key's feedback counts, and which keys are trusted.
        known: present names of a decision's `policy`, `expert` and `category`. A row with another name can be neither
            learned from nor decided again.

    Raises:
        DataError, StoreError: there is no log, it cannot be read, or a row is damaged.
    """
    with open_log(database_url) as connection:
        rewards, reasked = read_rewards(connection, feedback.key_weights, of_tasks=True), read_reasked(connection)
        records = read_records(connection, since)
        grades = read_judged_grades(connection, since, math.inf)
        of_answers = read_rewards(connection, feedback.key_weights) if grades else {}
        judges = judge_agreements(grades, count_swapped_pairs(connection, since, math.inf), of_answers)
        preferences = read_preferences(connection, [each.name for each in judges if each.is_trusted])
        table = build_table(records, rewards, reasked, feedback, progress, known, preferences)
        unheard = Counter[str]()
        for each in judges:
            unheard[UNTRUSTED.format(each.judge)] += 0 if each.is_trusted else each.pairs
        return replace(table, dropped=Counter(table.dropped) + unheard)


def build_table(
    records: Iterable[DecisionRecord],
    rewards: Mapping[str, float],
    reasked: Collection[str] = (),
    feedback: FeedbackConfig = DEFAULT_FEEDBACK,
    progress: Progress = silent,
    known: Mapping[str, Collection[str]] = MappingProxyType({}),
    preferences: Mapping[str, Sequence[tuple[str, str, float]]] = MappingProxyType({}),
) -> LogTable:
    """Sort records into used and dropped. Used ones are weighted by how rarely such an answer gets feedback, and by the
    key's weight. A log of one key is that key's own, so no share limits it.

    Args:
        preferences: judges' preferences, as returned by `read_preferences`.
    """
    columns, pairs, replies, models, tokens = Columns(), Columns(), Replies(), ModelHistory(), TrafficTokens()
    dropped, traffic, n_rows = Counter[str](), Counter[str](), 0
    asking, digest = set[str](), hashlib.sha256()
    for record in records:
        n_rows += 1
        models.add(record)
        tokens.add(record)
        digest.update(record.decision_id.encode())
        if n_rows % REPORT_EVERY == 0:
            progress(f"read {n_rows} decisions")
        reason = why_left_out(record, rewards, known)
        reward = None if has_failed(record) else rewards.get(record.decision_id)
        key_weight = feedback.key_weights.get(record.key_id or "", 1.0)
        if record.decision is not None and reason in (None, "no feedback"):
            traffic[record.decision.category] += 1
            asking.add(record.key_id or "")
            if not has_failed(record):
                replies.add(record.decision, implicit_kinds(record, reasked), reward)
            its = min(key_weight, 1.0)
            for served, other, preferred in sorted(preferences.get(record.decision_id, ())):
                if served == record.decision.expert and its > 0:
                    digest.update(repr((other, preferred, its)).encode())
                    pairs.add(record, preferred, its)
                    pairs.add(record, 1.0 - preferred, its, other)
        if reason is not None:
            dropped[reason] += 1
            continue
        digest.update(repr(reward).encode())
        columns.add(record, reward, key_weight)
    is_limited = len(asking) > 1 and feedback.max_key_share < 1
    unlimited = feedback.trusted_keys if is_limited else asking
    limited = dict.fromkeys(name for name in (*columns.keys, *pairs.keys) if name not in unlimited)
    limited_keys = {name: number for number, name in enumerate(limited)}
    table = columns.table(columns.weights(replies), limited_keys, feedback.max_key_share)
    judged = pairs.table(np.array(pairs.key_weight), limited_keys, feedback.max_key_share)
    counts = table.weight > 0
    if not counts.all():
        dropped[NOTHING_TO_WEIGH] = int((~counts).sum())
        table = table.rows(counts)
    return replace(
        table,
        weight=table.weight / table.weight.mean() if len(table) else table.weight,
        traffic=traffic,
        dropped=dropped,
        n_rows=n_rows - dropped[ASKED_BY_COE],
        tokens=tokens,
        fingerprint=digest.hexdigest()[:16],
        model_changes=tuple(models.last.values()),
        judged=judged if len(judged) else None,
    )


def why_left_out(
    record: DecisionRecord, rewards: Mapping[str, float], known: Mapping[str, Collection[str]]
) -> str | None:
    """Return why a row neither teaches nor judges, or None."""
    reason = None if has_failed(record) else why_dropped(record, rewards)
    if reason in (None, "no feedback"):
        for kind, names in known.items():
            if (name := getattr(record.decision, kind)) not in names:
                return f"{kind} '{name}' is not in experts.yaml"
    return reason
