"""An account of every decision: in SQL, on its way there, removed on purpose, or lost.

A decision moves from a gateway's memory to spool, stream and SQL, and is in one of them at any time. The places are
read in this order, so a moving decision is seen at least once, and a log in use shows no false loss.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coe.base.json_text import JsonError, from_json
from coe.decision_log.database import Database
from coe.decision_log.ledger import Account, Ledger
from coe.decision_log.payloads import json_line
from coe.decision_log.ranges import complement, count, merged, without
from coe.decision_log.replica_status import BEAT_S, ReplicaState, ReplicaStatus, read_status
from coe.decision_log.spool import spool_folders, unsent_payloads
from coe.decision_log.stream import RECORD_FIELD, eviction_policy
from coe.decision_log.stream_entries import dead_entries, waiting_entries
from coe.fleet.processes.folder_lock import is_held

if TYPE_CHECKING:
    from coe.decision_log.redis_client import RedisClient

SILENT_S = 10 * BEAT_S
"""Seconds without a status after which a running replica counts as silent."""


@dataclass(slots=True)
class Survey:
    """Decisions found in one place: their count, and the readable numbers by replica."""

    records: int = 0
    seqs: dict[str, set[int]] = field(default_factory=dict)

    def add(self, payload: bytes) -> None:
        """Count one record."""
        self.records += 1
        if (number := number_of(payload)) is not None:
            self.seqs.setdefault(number[0], set()).add(number[1])

    def of(self, replica: str) -> set[int]:
        """Return the numbers of a replica."""
        return self.seqs.get(replica, set())


@dataclass(frozen=True, slots=True)
class Finding:
    """The fate of one replica's decisions.

    `lost` has numbers that were found nowhere. `unsettled` counts those that a running replica may still hold, in
    memory or in a spool on another machine.
    """

    replica: str
    state: ReplicaState | None
    decisions: int
    rows: int
    removed: int
    duplicates: int
    lost: tuple[range, ...] = ()
    unsettled: int = 0
    silent_since: float | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings for all replicas, and the number of decisions that wait in each place."""

    findings: tuple[Finding, ...]
    in_spool: int
    in_stream: int
    dead: int
    evicts_by: str | None = None  # the policy by which Redis gives up what it has taken

    @property
    def decisions(self) -> int:
        return sum(finding.decisions for finding in self.findings)

    @property
    def rows(self) -> int:
        return sum(finding.rows for finding in self.findings)

    @property
    def removed(self) -> int:
        return sum(finding.removed for finding in self.findings)

    @property
    def unsettled(self) -> int:
        return sum(finding.unsettled for finding in self.findings)

    @property
    def duplicates(self) -> int:
        return sum(finding.duplicates for finding in self.findings)

    @property
    def gaps(self) -> int:
        """Number of ranges of consecutive lost numbers."""
        return sum(len(finding.lost) for finding in self.findings)

    @property
    def lost(self) -> int:
        return sum(count(finding.lost) for finding in self.findings)

    @property
    def silent(self) -> tuple[Finding, ...]:
        """Replicas that did not end and sent no status lately: their latest decisions are unknown."""
        return tuple(finding for finding in self.findings if finding.silent_since is not None)

    @property
    def is_healthy(self) -> bool:
        """True if no decision is or may be lost, repeated or dead; some may still be on the way."""
        return not (self.lost or self.duplicates or self.dead or self.silent or self.evicts_by)


async def diagnose(root: Path, client: RedisClient, stream: str, database: Database, now: float) -> Diagnosis:
    """Count decisions in every place; gateways may be running.

    Args:
        root: folder of this machine's spools.
        now: Unix seconds.

    Raises:
        RedisError, OSError: Redis does not answer.
        StoreError: the database does not answer.
    """
    statuses = await asyncio.to_thread(local_replicas, root, now)
    spooled = await asyncio.to_thread(survey_spools, root)
    streamed, dead = Survey(), Survey()
    async for entry in waiting_entries(client, stream):
        if entry.field == RECORD_FIELD:
            streamed.add(entry.payload or b"")
    async for entry in dead_entries(client, stream):
        dead.add(entry.payload or b"")
    ledger = Ledger(database)
    accounts = {account.replica: account for account in await asyncio.to_thread(ledger.accounts)}
    names = sorted({*accounts, *statuses, *spooled.seqs, *streamed.seqs, *dead.seqs})
    findings = [
        assess(
            accounts.get(name) or Account(name),
            statuses.get(name),
            spooled.of(name) | streamed.of(name) | dead.of(name),
            now,
        )
        for name in names
    ]
    policy = await eviction_policy(client)
    return Diagnosis(tuple(findings), spooled.records, streamed.records, dead.records, policy)


def assess(account: Account, local: ReplicaStatus | None, elsewhere: set[int], now: float) -> Finding:
    """Determine the fate of one replica's decisions.

    Args:
        account: what SQL has.
        local: the count in its spool on this machine, read before everything else; None if there is none.
        elsewhere: numbers found in spool, stream and dead letters.
        now: Unix seconds.
    """
    status = local or account.status
    is_running = status is not None and status.state is ReplicaState.RUNNING
    known = merged([*account.written, *account.removed])
    met_end = max([known[-1].stop if known else 0, *(seq + 1 for seq in elsewhere)])
    decisions = max(account.decisions, met_end, 0 if local is None else local.decisions)
    missing = without(complement(known, decisions), elsewhere)
    settled = decisions
    if status is not None and is_running:
        settled = settled_below(status, met_end, is_local=local is not None)
    lost = [range(each.start, min(each.stop, settled)) for each in missing if each.start < settled]
    is_silent = is_running and local is None and status is not None and now - status.at > SILENT_S
    return Finding(
        replica=account.replica,
        state=None if status is None else status.state,
        decisions=decisions,
        rows=account.rows,
        removed=count(account.removed),
        duplicates=account.duplicates,
        lost=tuple(lost),
        unsettled=count(missing) - count(lost),
        silent_since=status.at if is_silent and status is not None else None,
    )


def settled_below(status: ReplicaStatus, met_end: int, *, is_local: bool) -> int:
    """Return the first number that a running replica may still hold; a smaller number that was found nowhere is lost.

    A spool on another machine cannot be read. It sends older numbers first, so a number given after the last report
    proves that every number below `settled` has passed.
    """
    return status.settled if is_local or met_end > status.decisions else 0


def local_replicas(root: Path, now: float) -> dict[str, ReplicaStatus]:
    """Return the status of each replica whose spool is on this machine, by name."""
    statuses = (read_status(folder, is_alive=is_held(folder), at=now) for folder in spool_folders(root))
    return {status.replica: status for status in statuses if status is not None}


def survey_spools(root: Path) -> Survey:
    """Count the decisions in the spools under `root`."""
    survey = Survey()
    for folder in spool_folders(root):
        for payload in unsent_payloads(folder):
            survey.add(payload)
    return survey


def number_of(payload: bytes) -> tuple[str, int] | None:
    """Return replica and sequence number of a record; None if it is foreign or too large for SQL."""
    try:
        values = from_json(json_line(payload))
    except JsonError:
        return None
    replica, seq = (values.get("replica"), values.get("seq")) if isinstance(values, dict) else (None, None)
    return (replica, seq) if isinstance(replica, str) and isinstance(seq, int) and 0 <= seq < 2**63 else None
