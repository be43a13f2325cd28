"""Router events in SQL, and the log's evidence about a trial. Methods block; a coroutine runs them in a thread."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.engine import Connection
from sqlmodel import col

from coe.decision_log.database import Database
from coe.decision_log.decision_record import TerminalState
from coe.decision_log.e_process import Arm
from coe.decision_log.tables.log import DecisionRow, FeedbackRow, RouterEventRow
from coe.router.live_pointer import LivePointer, Trial
from coe.router.types import DecisionReason

VERSION = DecisionRow.__table__.c.router_version

FAILED = (TerminalState.UPSTREAM_ERROR, TerminalState.TIMED_OUT)
ENDED = (TerminalState.ANSWERED, *FAILED)
"""Final states that count for a router; a client that left or an unserved request says nothing about it."""

PAST_S = 7 * 86_400.0
"""Seconds before a trial from which the live router's own past is read (our choice)."""


@dataclass(frozen=True)
class TrialEvidence:
    """Rewards and successes (1 - failures) of candidate and live router in the trial, and the live one's before it."""

    candidate_reward: Arm
    live_reward: Arm
    past_reward: Arm
    candidate_success: Arm
    live_success: Arm
    past_success: Arm


class RouterVersions:
    """Router events in a database. Methods raise StoreError if the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._past_of: tuple[str, Trial] | None = None  # whose past is kept below: it does not change
        self._past_reward = self._past_success = Arm()

    def note(self, pointer: LivePointer) -> None:
        """Store the events of a pointer that are not stored yet."""
        with self._database.transaction("note router versions") as connection:
            connection.execute(self._database.insert(RouterEventRow).on_conflict_do_nothing(), events_of(pointer))

    def evidence(self, live: str, trial: Trial) -> TrialEvidence:
        """Return the log's evidence about a trial against that live router."""
        with self._database.transaction("read a trial's evidence") as connection:
            rewards = first_rewards(connection, (live, trial.version), trial.started_at)
            successes = count_successes(connection, (live, trial.version), trial.started_at)
            if self._past_of != (live, trial):
                begin, end = trial.started_at - PAST_S, trial.started_at
                self._past_reward = past_rewards(connection, live, begin, end)
                self._past_success = count_successes(connection, (live,), begin, end).get(live, Arm())
                self._past_of = (live, trial)
        return TrialEvidence(
            candidate_reward=rewards.get(trial.version, Arm()),
            live_reward=rewards.get(live, Arm()),
            past_reward=self._past_reward,
            candidate_success=successes.get(trial.version, Arm()),
            live_success=successes.get(live, Arm()),
            past_success=self._past_success,
        )


def events_of(pointer: LivePointer) -> list[dict[str, object]]:
    """Return rows for a pointer's present and its withdrawals; an invalid time counts as 0."""
    events: list[tuple[float, str, str, str]] = [
        (unix_seconds(pointer.promoted_at), pointer.version, "promoted", ""),
        *((unix_seconds(gone.at), gone.version, "withdrawn", gone.reason) for gone in pointer.withdrawn),
    ]
    if (trial := pointer.trial) is not None:
        events.append((trial.started_at, trial.version, "canary", f"share {trial.share:g}"))
    return [dict(zip(RouterEventRow.__table__.c.keys(), event, strict=True)) for event in events]


def unix_seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def decided_by(versions: tuple[str, ...], since: float) -> ColumnElement[bool]:
    """Return an SQL condition for decisions of these versions since a time, except those whose expert the client named.

    Neither praise nor failure of such an answer belongs to the router.
    """
    is_routed = col(DecisionRow.reason) != DecisionReason.EXPLICIT.value
    return and_(col(DecisionRow.at) >= since, VERSION.in_(versions), is_routed)


def first_rewards(connection: Connection, versions: tuple[str, ...], since: float) -> dict[str, Arm]:
    """Return the first reward of every conversation, summed by version: later rewards are not independent."""
    query = (
        select(VERSION, col(DecisionRow.session_id), col(DecisionRow.decision_id), col(FeedbackRow.value))
        .select_from(DecisionRow)
        .join(col(DecisionRow.feedback))
        .where(decided_by(versions, since))
        .order_by(col(FeedbackRow.at), col(FeedbackRow.id))
    )
    seen: set[str] = set()
    sums = {version: [0, 0.0] for version in versions}
    for version, session, decision, value in connection.execute(query):
        unit = session or decision
        if unit not in seen:
            seen.add(unit)
            sums[version][0] += 1
            sums[version][1] += value
    return {version: Arm(n, total) for version, (n, total) in sums.items()}


def past_rewards(connection: Connection, version: str, since: float, until: float) -> Arm:
    """Return number and sum of a version's rewards between two Unix times."""
    query = (
        select(func.count(), func.coalesce(func.sum(col(FeedbackRow.value)), 0.0))
        .select_from(DecisionRow)
        .join(col(DecisionRow.feedback))
        .where(decided_by((version,), since), col(DecisionRow.at) < until, col(FeedbackRow.at) < until)
    )
    n, total = connection.execute(query).one()
    return Arm(n, total)


def count_successes(
    connection: Connection, versions: tuple[str, ...], since: float, until: float | None = None
) -> dict[str, Arm]:
    """Return by version how many decisions ended well, among those that ended well or failed."""
    query = (
        select(VERSION, col(DecisionRow.state), func.count())
        .where(decided_by(versions, since))
        .where(col(DecisionRow.state).in_([state.value for state in ENDED]))
        .group_by(VERSION, col(DecisionRow.state))
    )
    if until is not None:
        query = query.where(col(DecisionRow.at) < until)
    arms: dict[str, Arm] = {}
    for version, state, count in connection.execute(query):
        arm = arms.get(version, Arm())
        arms[version] = Arm(arm.n + count, arm.total + (count if state == TerminalState.ANSWERED.value else 0))
    return arms
