"""The commands `coe log doctor` and `coe log drain`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.errors import StoreError, allowed_values
from coe.cli.options import ConfigOption, DataOption
from coe.decision_log.connections import given_redis, opened_client, opened_database, opened_redis, run_with_redis
from coe.decision_log.consumer import Consumer, ConsumerStats
from coe.decision_log.database import Database
from coe.decision_log.doctor import SILENT_S, Diagnosis, Finding, diagnose
from coe.decision_log.ledger import Ledger
from coe.decision_log.leftovers import send_leftovers
from coe.decision_log.ranges import count, named
from coe.decision_log.replica_status import ReplicaState, ReplicaStatus
from coe.decision_log.sink import SPOOL_FOLDER, new_replica
from coe.decision_log.stream import DecisionStream, evicting
from coe.fleet.processes.stop_signal import stop_on_signal
from coe.router.config.composition import load_config
from coe.router.config.log import LogConfig

if TYPE_CHECKING:
    from coe.cli.terminal import Grid


def doctor(
    data_dir: DataOption = Path("data"),
    config: ConfigOption = Path("experts.yaml"),
    give_up: Annotated[
        list[str] | None,
        typer.Option("--give-up", help="replica that is silent and will not come back: count it as killed"),
    ] = None,
) -> int:
    """Prove that the decision log lost nothing, or name the gaps; exit status 1 when there are some."""
    from coe.cli.progress import working
    from coe.cli.terminal import Terminal

    console = Terminal()
    with working("counting decisions and rows ..."), opened_database(data_dir) as database:
        for replica in give_up or ():
            give_replica_up(database, replica)
        found = run_with_redis(examine(data_dir, load_config(config).log, given_redis(), database))
    if found.findings:
        console.print(replica_table(found.findings))
    for line in verdict(found):
        console.print(line, soft_wrap=True)
    return 0 if found.is_healthy else 1


def verdict(found: Diagnosis) -> Iterator[str]:
    """Yield the proof in one line, then a line for each fault."""
    removed = f", {found.removed:,} removed on purpose" if found.removed else ""
    lost = f" ({found.lost:,} decisions lost)" if found.lost else ""
    yield (
        f"{found.decisions:,} decisions, {found.rows:,} rows{removed}, {found.gaps:,} gaps{lost}, "
        f"{found.duplicates:,} duplicates, {found.dead:,} dead letters; on the way: {found.in_spool:,} in spools, "
        f"{found.in_stream:,} in the stream, {found.unsettled:,} still with their gateway"
    )
    if found.dead:
        yield "dead letters: entries that five deliveries did not bring into SQL; the gateway's log says why"
    if found.evicts_by is not None:
        yield evicting(found.evicts_by)
    for finding in found.findings:
        if finding.lost:
            yield f"lost: {finding.replica} numbers {named(finding.lost)}"
    for finding in found.silent:
        since = datetime.fromtimestamp(finding.silent_since or 0.0, UTC).isoformat(timespec="seconds")
        yield (
            f"silent: {finding.replica} since {since}; what it decided after number {finding.decisions - 1} cannot be "
            f"known. If it will not come back: coe log doctor --give-up {finding.replica}"
        )


def give_replica_up(database: Database, replica: str) -> None:
    """Record a silent replica as killed; raise StoreError if it is unknown or sent a status lately."""
    ledger = Ledger(database)
    known = {account.replica: account for account in ledger.accounts()}
    if replica not in known:
        raise StoreError(f"no replica '{replica}' is known{allowed_values(replica, known)}")
    now, status = time.time(), known[replica].status
    if status is not None and status.state is ReplicaState.RUNNING and now - status.at <= SILENT_S:
        raise StoreError(
            f"replica '{replica}' was heard of {max(now - status.at, 0):.0f} s ago; allowed: one that has been "
            f"silent for {SILENT_S:.0f} s"
        )
    killed = ReplicaStatus(replica=replica, decisions=known[replica].decisions, state=ReplicaState.KILLED, at=now)
    ledger.note_replicas([killed])


def drain(
    data_dir: DataOption = Path("data"),
    config: ConfigOption = Path("experts.yaml"),
    follow: Annotated[
        bool, typer.Option("--follow", help="keep consuming the stream, in addition to the gateways, until stopped")
    ] = False,
) -> int:
    """Write what waits in spools and stream to SQL; exit status 1 when a record could not be written."""
    from coe.cli.progress import working
    from coe.cli.terminal import Terminal
    from coe.fleet.processes.program_log import log_to_stderr

    if follow:
        log_to_stderr("info")
        with opened_database(data_dir) as database:
            run_with_redis(consume_until_signal(data_dir, load_config(config).log, given_redis(), database))
        return 0
    console = Terminal()
    with working("draining ..."), opened_database(data_dir) as database:
        sent, stats = run_with_redis(drain_all(data_dir, load_config(config).log, given_redis(), database))
    console.print(
        f"{sent:,} decisions sent from spools; {stats.written:,} rows written, {stats.repeated:,} were there already, "
        f"{stats.dead:,} given up"
    )
    return 1 if stats.dead else 0


async def consume_until_signal(data_dir: Path, config: LogConfig, redis_url: str | None, database: Database) -> None:
    """Consume the stream until a signal; raise EngineError if there is no Redis and none can be started."""
    async with opened_redis(data_dir, redis_url) as url:
        consumer = Consumer(redis_url=url, stream=config.stream, database=database, name=new_replica())
        with stop_on_signal() as stop:
            await consumer.start()
            await stop.wait()
            await consumer.aclose()


async def examine(data_dir: Path, config: LogConfig, redis_url: str | None, database: Database) -> Diagnosis:
    """Return the diagnosis of a data folder; may raise RedisError, StoreError or EngineError."""
    async with opened_client(data_dir, redis_url) as client:
        return await diagnose(data_dir / SPOOL_FOLDER, client, config.stream, database, time.time())


async def drain_all(
    data_dir: Path, config: LogConfig, redis_url: str | None, database: Database
) -> tuple[int, ConsumerStats]:
    """Bring everything that no live process holds into SQL; may raise RedisError, StoreError or EngineError."""
    async with opened_redis(data_dir, redis_url) as url:
        stream = DecisionStream(url, name=config.stream, max_entries=config.stream_max_entries)
        consumer = Consumer(redis_url=url, stream=config.stream, database=database, name=new_replica())
        try:
            await consumer.drain()
            sent = await send_leftovers(data_dir / SPOOL_FOLDER, stream)
            stats = await consumer.drain()
        finally:
            await consumer.aclose()
            await stream.aclose()
    return sent, stats


def replica_table(findings: Sequence[Finding]) -> Grid:
    """Return a table of replicas, those with a fault first."""
    from coe.cli.terminal import Grid

    table = Grid("replica", "state", "decisions", "rows", "removed", "lost", "duplicates", "with their gateway")
    for each in sorted(findings, key=lambda one: (-count(one.lost), -one.duplicates, one.replica)):
        state = "unknown" if each.state is None else each.state.value
        numbers = (each.decisions, each.rows, each.removed, count(each.lost), each.duplicates, each.unsettled)
        table.add_row(each.replica, state, *(f"{number:,}" for number in numbers))
    return table
