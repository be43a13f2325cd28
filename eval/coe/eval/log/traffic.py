"""The decision log in columns. Texts are never read: a report on traffic quotes no prompt."""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import DataError
from coe.cli.progress import Progress, silent
from coe.decision_log.decision_record import DecisionRecord, ModelChange, ModelHistory, TerminalState
from coe.decision_log.read import read_records, read_rewards
from coe.decision_log.sql_engine import open_log
from coe.eval.metrics.intervals import Rate, rate
from coe.router.types import BoolArray, Float64Array, IntArray
from coe.training.types import question_of

Names = NDArray[np.object_]
NOT_ROUTED = "none"
PROBE, MALFORMED, CAPPED = "probes by coe itself", "malformed requests", "requests over a cap of their key"
CAP_CODES = ("insufficient_quota", "rate_limit_exceeded")
"""Error codes of a refusal by a cap of a key or team."""
REPORT_EVERY = 10_000


@dataclass(frozen=True)
class Traffic:
    """The n decisions in order of time; every array is of shape (n,).

    `expert` answered, or was chosen if there was no answer. `is_routed`: the router chose, not the client; otherwise
    `category` has no meaning. `reward` in [0, 1] is NaN without feedback, `ttft_ms` without an answer. `question` and
    `key` are equal for decisions about the same question and of the same key. `left_out` counts rows of the log that
    are not traffic; `model_changes` are those of the models behind experts.
    """

    at: Float64Array
    state: Names
    category: Names
    expert: Names
    is_routed: BoolArray
    is_fallback: BoolArray
    reward: Float64Array
    cost_usd: Float64Array
    latency_ms: Float64Array
    ttft_ms: Float64Array
    tokens: Float64Array
    question: IntArray
    key: IntArray
    left_out: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    model_changes: tuple[ModelChange, ...] = field(default=(), kw_only=True)

    def __len__(self) -> int:
        return len(self.at)

    def rows(self, keep: BoolArray | IntArray) -> Traffic:
        """Select decisions by a mask (n,) or by numbers."""
        return replace(self, **{name: getattr(self, name)[keep] for name, _ in COLUMNS})

    def parts(self, names: Names) -> Iterator[tuple[str, Traffic]]:
        """Yield the decisions of each of the names (n,), the most frequent first."""
        for name, _ in Counter(names.tolist()).most_common():
            yield name, self.rows(names == name)

    def share(self, mask: BoolArray) -> Rate | None:
        """Return the share of decisions that a mask (n,) selects, with its interval; None without any."""
        return rate(mask.astype(np.float64), clusters=self.clusters)

    @property
    def routed(self) -> Traffic:
        """The decisions that the router chose."""
        return self.rows(self.is_routed)

    @property
    def is_answered(self) -> BoolArray:
        return np.asarray(self.state == TerminalState.ANSWERED.value, dtype=np.bool_)

    @property
    def clusters(self) -> tuple[IntArray, IntArray]:
        """The groups of decisions that are not independent of each other: by question and by key."""
        return self.question, self.key

    @property
    def is_rated(self) -> BoolArray:
        return np.isfinite(self.reward)

    @property
    def quality(self) -> Rate | None:
        """The mean reward of the rated decisions."""
        return rate(self.reward, clusters=self.clusters)


DTYPES = {"Float64Array": "f8", "BoolArray": "?", "IntArray": "i8", "Names": "O"}
COLUMNS = [(each.name, DTYPES[str(each.type)]) for each in fields(Traffic) if str(each.type) in DTYPES]


def read_traffic(
    database_url: str, *, since: float = 0.0, until: float = float("inf"), progress: Progress = silent
) -> Traffic:
    """Read the decisions with since <= at < until (Unix seconds) and the feedback on them.

    Raises:
        DataError, StoreError: the database cannot be read, or holds no decision of that time.
        MissingExtraError: it is Postgres, whose driver is not installed.
    """
    with open_log(database_url) as connection:
        rewards = read_rewards(connection)
        records = takewhile(lambda record: record.at < until, read_records(connection, since))
        found = gather(records, rewards, progress)
    if len(found) == 0:
        others = "".join(f", and {count} {name}" for name, count in found.left_out.items())
        raise DataError(f"the decision log holds no decision of that time{others}; nothing to report on yet")
    return found


def gather(records: Iterable[DecisionRecord], rewards: Mapping[str, float], progress: Progress = silent) -> Traffic:
    """Convert records to columns of numbers and shared names: as Python objects a million would take a gigabyte."""
    left_out, models = Counter[str](), ModelHistory()

    def rows() -> Iterator[tuple[object, ...]]:
        for number, record in enumerate(records, start=1):
            if number % REPORT_EVERY == 0:
                progress(f"read {number} decisions")
            models.add(record)
            if (reason := why_no_traffic(record)) is not None:
                left_out[reason] += 1
                continue
            row = row_of(record, rewards.get(record.decision_id, float("nan")))
            yield tuple(sys.intern(value) if isinstance(value, str) else value for value in row)

    table: NDArray[Any] = np.fromiter(rows(), dtype=COLUMNS)
    columns = {name: table[name] for name, _ in COLUMNS}
    return Traffic(**columns, left_out=dict(left_out), model_changes=tuple(models.changes))


def why_no_traffic(record: DecisionRecord) -> str | None:
    """Return why a row says nothing about what users get: coe's own probe, an invalid request, or a key over its
    cap. Return None for traffic, which includes a refusal for lack of capacity (429)."""
    if record.is_probe:
        return PROBE
    if record.state is not TerminalState.REJECTED or not 400 <= record.status < 500:
        return None
    if record.status != 429:
        return MALFORMED
    return CAPPED if record.error_code in CAP_CODES else None


def row_of(record: DecisionRecord, reward: float) -> tuple[object, ...]:
    """Return the columns of one record, in the order of `Traffic`."""
    decision = record.decision
    is_routed = decision is not None and decision.reason.is_routed
    return (
        record.at,
        record.state.value,
        decision.category if decision and is_routed else NOT_ROUTED,
        record.served_expert or (decision.expert if decision else NOT_ROUTED),
        is_routed,
        bool(decision and decision.is_fallback),
        reward if record.state is TerminalState.ANSWERED else np.nan,
        record.cost_usd,
        record.latency_ms,
        np.nan if record.ttft_ms is None else record.ttft_ms,
        record.usage.prompt_tokens + record.usage.completion_tokens,
        question_of(record),
        zlib.crc32((record.key_id or "").encode()),
    )
