"""The decision log in columns: a million answers are some tens of megabytes, because texts and vectors stay in SQL.

`read_log_table` reads every decision once and keeps numbers; `training.log_answers` fetches the texts and embeddings of
the few thousand answers that a judge or a learned scorer really looks at. Shapes: n answers with a reward.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from base.progress import Progress, silent
from decision_log.decision_record import DecisionRecord
from decision_log.feedback_types import ImplicitKind
from decision_log.read import (
    ASKED_BY_COE,
    BY_BUILTIN,
    BY_SEVERAL,
    has_failed,
    read_records,
    read_rewards,
    read_signals,
    why_dropped,
)
from decision_log.served_models import ModelChange, ModelHistory
from decision_log.sql_engine import open_log
from router.feedback_config import FeedbackConfig
from router.types import BoolArray, Float64Array, IntArray
from training.builtin_feedback import RatedBuiltin
from training.feedback_bias import Replies
from training.key_influence import UNLIMITED, clusters
from training.split import question_of
from training.strategies.panels import Panels

KEY_STRIDE = 7
"""Parts by which a key's answers to a question are moved on; it has no divisor in common with `FOLDS`."""

FOLDS = 10
"""Parts of questions, graded or logged: each is judged by a router that was fitted without it. A map of five folds lost
more by what it lacked than its judge gained (ours)."""

REPORT_EVERY = 10_000
NOTHING_TO_WEIGH = "failed, and counts for nothing: no answer has feedback to weigh it against, or its key weighs 0"
DEFAULT_FEEDBACK = FeedbackConfig()


@dataclass(frozen=True)
class LogTable:
    """Answers with a reward and failures, in order of time. All arrays (n,).

    `category` and `expert` number `categories` and `experts`; `reward` in [0, 1]; `propensity` is the probability with
    which the router chose the expert; `weight` counts an answer for those of its kind that got no feedback, times the
    weight of the key that gave it (mean 1); `question` is equal for answers to the same question; `key` numbers who
    gave the feedback, `UNLIMITED` for keys whose share of the evidence `max_key_share` does not bound; `is_held_out`
    answers are not learned from; `is_failure`: the expert failed, a reward of 0 without
    feedback. `traffic` counts the routed queries per category (the map's mass); `dropped` the decisions left out, by
    reason; `n_rows` the decisions read, without coe's own probes;
    `model_changes` the last change of the model behind each expert; `panels` what several experts were asked for;
    `builtins` the rated answers of experts that are not language models.
    """

    ids: NDArray[np.bytes_]
    categories: tuple[str, ...]
    experts: tuple[str, ...]
    category: NDArray[np.int32]
    expert: NDArray[np.int32]
    reward: Float64Array
    propensity: Float64Array
    weight: Float64Array
    at: Float64Array
    question: IntArray
    key: IntArray
    is_held_out: BoolArray
    is_failure: BoolArray
    max_key_share: float = 1.0
    traffic: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    n_rows: int = 0
    fingerprint: str = ""
    model_changes: tuple[ModelChange, ...] = ()
    panels: Panels = field(default_factory=Panels)
    builtins: tuple[RatedBuiltin, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, keep: BoolArray | IntArray) -> LogTable:
        """Some of the answers; what is counted over all decisions stays."""
        return replace(self, **{name: getattr(self, name)[keep] for name in ROW_COLUMNS})

    @property
    def fold(self) -> IntArray:
        """(n,) part of each answer: what a key asks again stays in one, however often."""
        return np.asarray((self.question + KEY_STRIDE * self.key) % FOLDS)

    def without(self, fold: int) -> LogTable:
        """The same log, of which one part is not learned from."""
        return replace(self, is_held_out=self.fold == fold)

    @property
    def cluster(self) -> IntArray:
        """(n,) cluster of each answer, for the bootstrap: one key, or one question of a key without a limit."""
        return clusters(self.question, self.key)

    def category_in(self, names: tuple[str, ...]) -> IntArray:
        """(n,) number of each answer's category among other names; -1 where it is not among them."""
        return renumbered(self.category, self.categories, names)

    def expert_in(self, names: tuple[str, ...]) -> IntArray:
        """(n,) number of each answer's expert among other names; -1 where it is not among them."""
        return renumbered(self.expert, self.experts, names)


ROW_COLUMNS = tuple(each.name for each in fields(LogTable) if "Array" in str(each.type))


def renumbered(values: NDArray[np.int32], own: tuple[str, ...], names: tuple[str, ...]) -> IntArray:
    """Numbers of `own` as numbers of `names`; -1 for what is not there."""
    number = {name: i for i, name in enumerate(names)}
    index = np.array([number.get(name, -1) for name in own], dtype=np.int64)
    return index[values] if len(own) else np.zeros(0, dtype=np.int64)


@dataclass
class Columns:
    """Columns that grow row by row, at their final width; names are numbered in order of appearance."""

    ids: list[bytes] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)
    experts: dict[str, int] = field(default_factory=dict)
    category: array[int] = field(default_factory=lambda: array("i"))
    expert: array[int] = field(default_factory=lambda: array("i"))
    reward: array[float] = field(default_factory=lambda: array("d"))
    propensity: array[float] = field(default_factory=lambda: array("d"))
    at: array[float] = field(default_factory=lambda: array("d"))
    question: array[int] = field(default_factory=lambda: array("q"))
    is_failure: array[int] = field(default_factory=lambda: array("b"))
    keys: list[str] = field(default_factory=list)

    def add(self, record: DecisionRecord, reward: float | None) -> None:
        """One decision with its reward; None: its expert failed."""
        assert record.decision is not None, "a row without a decision has no reward"
        self.ids.append(record.decision_id.encode())
        self.category.append(self.categories.setdefault(record.decision.category, len(self.categories)))
        self.expert.append(self.experts.setdefault(record.decision.expert, len(self.experts)))
        self.reward.append(reward or 0.0)
        self.is_failure.append(reward is None)
        self.propensity.append(record.decision.propensity)
        self.at.append(record.at)
        self.question.append(question_of(record))
        self.keys.append(sys.intern(record.key_id or ""))

    def table(self, weight: Float64Array, unlimited: Collection[str], max_key_share: float) -> LogTable:
        """The columns in order of time."""
        order = np.argsort(np.array(self.at, dtype=np.float64), kind="stable")
        question = np.array(self.question, dtype=np.int64)[order]
        numbers = {name: i for i, name in enumerate(dict.fromkeys(name for name in self.keys if name not in unlimited))}
        key = np.array([numbers.get(name, UNLIMITED) for name in self.keys], dtype=np.int64)[order]
        return LogTable(
            ids=np.array(self.ids, dtype=np.bytes_)[order],
            categories=tuple(self.categories),
            experts=tuple(self.experts),
            category=np.array(self.category, dtype=np.int32)[order],
            expert=np.array(self.expert, dtype=np.int32)[order],
            reward=np.array(self.reward, dtype=np.float64)[order],
            propensity=np.array(self.propensity, dtype=np.float64)[order],
            weight=weight[order],
            at=np.array(self.at, dtype=np.float64)[order],
            question=question,
            key=key,
            is_held_out=np.zeros(len(order), dtype=bool),
            is_failure=np.array(self.is_failure, dtype=bool)[order],
            max_key_share=max_key_share,
        )


def read_log_table(
    database_url: str,
    *,
    since: float = 0.0,
    feedback: FeedbackConfig = DEFAULT_FEEDBACK,
    known: Mapping[str, Collection[str]] = MappingProxyType({}),
    progress: Progress = silent,
) -> LogTable:
    """Reads decisions and feedback from SQL, a page at a time.

    Args:
        since: Unix seconds; older decisions are not read.
        feedback: of experts.yaml: how much a key's feedback counts, and which keys are trusted.
        known: names that experts.yaml has today of a decision's `policy`, `expert` and `category`: a row that names
            another can be neither learned from nor decided again.

    Raises:
        DataError, StoreError: there is no log, it cannot be read, or a row is damaged.
    """
    with open_log(database_url) as connection:
        rewards, signals = read_rewards(connection, feedback.key_weights), read_signals(connection)
        left_out: Counter[str] = Counter()
        records = read_records(connection, since, left_out)
        table = collect(records, rewards, signals, feedback, progress, known)
        return replace(table, dropped=Counter(table.dropped) + left_out, n_rows=table.n_rows + sum(left_out.values()))


def collect(
    records: Iterable[DecisionRecord],
    rewards: Mapping[str, float],
    signals: Mapping[str, tuple[ImplicitKind, ...]] = MappingProxyType({}),
    feedback: FeedbackConfig = DEFAULT_FEEDBACK,
    progress: Progress = silent,
    known: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> LogTable:
    """Sorts records into used and dropped, and weighs what is used: by how rarely such an answer gets feedback, and by
    whose it is. A log of one key is that key's own, so no share limits it."""
    columns, replies, digest, models, panels = Columns(), Replies(), hashlib.sha256(), ModelHistory(), Panels()
    key_weight = array("d")
    builtins: list[RatedBuiltin] = []
    dropped: Counter[str] = Counter()
    traffic: Counter[str] = Counter()
    asking: set[str] = set()
    n_rows = 0
    for record in records:
        n_rows += 1
        models.add(record)
        digest.update(record.decision_id.encode())
        if n_rows % REPORT_EVERY == 0:
            progress(f"read {n_rows} decisions")
        reason = why_left_out(record, rewards, known)
        reward = None if has_failed(record) else rewards.get(record.decision_id)
        if record.decision is not None and reason in (None, "no feedback"):
            traffic[record.decision.category] += 1
            asking.add(record.key_id or "")
            if not has_failed(record):
                replies.add(record.decision, signals.get(record.decision_id, ()), reward)
        if reason == BY_SEVERAL:
            panels.add(record, rewards.get(record.decision_id))
        if reason == BY_BUILTIN and record.decision_id in rewards and record.decision is not None:
            own = (record.decision.category, record.decision.expert)
            builtins.append(RatedBuiltin(record.decision_id, *own, rewards[record.decision_id], record.key_id or ""))
        if reason is not None:
            dropped[reason] += 1
            continue
        digest.update(repr(reward).encode())
        columns.add(record, reward)
        key_weight.append(feedback.key_weights.get(record.key_id or "", 1.0))
    weight = row_weights(columns, replies) * np.array(key_weight, dtype=np.float64)
    is_limited = len(asking) > 1 and feedback.max_key_share < 1
    table = columns.table(weight, feedback.trusted_keys if is_limited else asking, feedback.max_key_share)
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
        fingerprint=digest.hexdigest()[:16],
        model_changes=tuple(models.last.values()),
        panels=panels,
        builtins=tuple(builtins),
    )


def why_left_out(
    record: DecisionRecord, rewards: Mapping[str, float], known: Mapping[str, Collection[str]]
) -> str | None:
    """Reason why a row neither teaches nor judges, or None."""
    reason = None if has_failed(record) else why_dropped(record, rewards)
    if reason in (None, "no feedback"):
        for kind, names in known.items():
            if (name := getattr(record.decision, kind)) not in names:
                return f"{kind} '{name}' is not in experts.yaml"
    return reason


def row_weights(columns: Columns, replies: Replies) -> Float64Array:
    """(n,) how many requests each row represents, relative to the average reply.

    A reply represents the unrated answers like it. A failure is always seen, so it represents only itself: its weight
    is the share of answers that got a reply, or 0 if none did, since then nothing is known of what did not fail.
    """
    is_failure = np.array(columns.is_failure, dtype=bool)
    weight = np.full(len(is_failure), replies.rates.overall)
    weight[~is_failure] = replies.weights()
    return weight
