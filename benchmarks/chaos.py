"""Kills gateways, a consumer and Redis at random under load, then compares the rows with what clients saw.

    python -m benchmarks.chaos [--seconds 600] [--seed 7] [--durability sync]

Two gateways with a data folder each (as on two machines), a consumer of its own and the embedded Redis, all real
processes; every one is started again at once. The plan of kills follows from the seed; what the machine does does not.
Exit status 1 when an answer is lost beyond what its mode of `log.durability` may lose, or a row is there twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from rich.console import Console
from sqlalchemy import select
from sqlmodel import col

from benchmarks.chaos_fleet import Child, GatewayProcess, write_config
from benchmarks.chaos_history import WINDOW_S, Answer, Kill, Row, Verdict, Victim, check, planned_kills
from coe.base.json_text import from_json
from coe.decision_log.database import Database
from coe.decision_log.default_database import default_database_url
from coe.decision_log.doctor import Diagnosis
from coe.decision_log.doctor_commands import drain_all, examine
from coe.decision_log.tables.log import DecisionRow
from coe.router.config.log import Durability, LogConfig
from coe_offline.redis_server import RedisServer

CLIENTS = 8
ASK_TIMEOUT_S = 20.0
DOWN_PAUSE_S = 0.05
SHOWN_PROBLEMS = 20
TEXT = "say this again, please: the log has it or the client does not"

console = Console(highlight=False)


@dataclass
class Fleet:
    """Everything that can be killed, over one folder."""

    folder: Path
    durability: Durability
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = write_config(self.folder, durability=self.durability.value)
        self.database_url = default_database_url(self.folder)
        self.redis = RedisServer(self.folder / "redis")
        environment = {"REDIS_URL": self.redis.url, "DATABASE_URL": self.database_url, "COE_CONFIG": str(config)}
        self.gateways = {
            victim: GatewayProcess(config, self.folder / victim.value, environment, self.folder / f"{victim.value}.log")
            for victim in (Victim.GATEWAY_0, Victim.GATEWAY_1)
        }
        self.consumer = Child(["log", "drain", "--follow"], environment, self.folder / "consumer.log")

    @property
    def data_dirs(self) -> list[Path]:
        return [self.folder / victim.value for victim in self.gateways]

    async def start(self, client: aiohttp.ClientSession) -> None:
        await self.redis.start()
        Database(self.database_url).close()  # so that three processes need not make the tables at once
        for child in (*self.gateways.values(), self.consumer):
            child.start()
        for gateway in self.gateways.values():
            await gateway.wait_until_it_serves(client)

    def kill(self, victim: Victim) -> None:
        """Kills one; it is started again at once, Redis by its supervisor."""
        self.kills.append(Kill(time.monotonic(), victim))
        if victim is Victim.REDIS and self.redis.pid is not None:
            os.kill(self.redis.pid, signal.SIGKILL)
        if victim is Victim.REDIS:
            return
        child = self.consumer if victim is Victim.CONSUMER else self.gateways[victim]
        child.kill()
        child.start()

    async def stop(self) -> None:
        """Ends the children in order, so that they write what they have; Redis stays."""
        await asyncio.gather(*(child.stop() for child in (*self.gateways.values(), self.consumer)))

    def destroy(self) -> None:
        for child in (*self.gateways.values(), self.consumer):
            child.kill()


class Load:
    """Clients that ask one gateway or the other, one after another, and note every answer whose end they saw."""

    def __init__(self, fleet: Fleet, client: aiohttp.ClientSession, seed: int) -> None:
        self._fleet = fleet
        self._client = client
        self._seed = seed
        self._must_end = False
        self.answers: list[Answer] = []
        self.failures = 0

    async def run(self) -> None:
        await asyncio.gather(*(self._ask_on(number) for number in range(CLIENTS)))

    def end(self) -> None:
        self._must_end = True

    async def _ask_on(self, number: int) -> None:
        rng = random.Random(f"{self._seed}/{number}")
        count = 0
        while not self._must_end:
            victim = rng.choice(list(self._fleet.gateways))
            request_id, asked_at_s = f"c{number}-{count}", time.monotonic()
            is_stream = rng.random() < 0.5
            decision_id = await self._fleet.gateways[victim].ask(
                self._client, TEXT, is_stream=is_stream, request_id=request_id
            )
            count += 1
            if decision_id is None:
                self.failures += 1
                await asyncio.sleep(DOWN_PAUSE_S)
            else:
                self.answers.append(Answer(decision_id, request_id, victim, asked_at_s, time.monotonic()))


@dataclass(frozen=True)
class Outcome:
    """A run, and what client and doctor say of it."""

    durability: Durability
    kills: tuple[Kill, ...]
    failures: int
    verdict: Verdict
    doctor: Diagnosis

    @property
    def problems(self) -> list[str]:
        verdict, doctor = self.verdict, self.doctor
        problems = []
        if doctor.dead or doctor.silent or doctor.in_spool or doctor.in_stream or doctor.unsettled:
            problems.append(f"not settled: {doctor}")
        if doctor.lost < len(verdict.excused):
            problems.append(f"coe log doctor sees {doctor.lost} of {len(verdict.excused)} lost decisions")
        if self.durability is not Durability.ASYNC and doctor.lost:
            problems.append(f"coe log doctor names {doctor.lost} lost decisions")
        problems += [f"lost: {answer.decision_id} of {answer.gateway}" for answer in verdict.lost]
        problems += [f"two rows for request {request_id}" for request_id in verdict.twice_asked]
        problems += [f"two rows for number {seq} of {replica}" for replica, seq in verdict.twice_numbered]
        return problems


async def run_chaos(folder: Path, seed: int, seconds: float, durability: Durability) -> Outcome:
    """One run over an empty folder."""
    fleet = Fleet(folder, durability)
    timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        try:
            await fleet.start(client)
            load = Load(fleet, client, seed)
            loading = asyncio.create_task(load.run())
            begin = time.monotonic()
            for kill in planned_kills(seed, seconds):
                await asyncio.sleep(max(0.0, begin + kill.at_s - time.monotonic()))
                await asyncio.to_thread(fleet.kill, kill.victim)
            await asyncio.sleep(max(0.0, begin + seconds - time.monotonic()))
            load.end()
            await loading
            await fleet.stop()
            rows, doctor = await settled(fleet)
        finally:
            fleet.destroy()
            await fleet.redis.stop()
    verdict = check(load.answers, rows, fleet.kills, WINDOW_S[durability])
    return Outcome(durability, tuple(fleet.kills), load.failures, verdict, doctor)


async def settled(fleet: Fleet) -> tuple[list[Row], Diagnosis]:
    """All rows and the doctor's view, once what was left in spools and stream is in SQL."""
    store = Database(fleet.database_url)
    config = LogConfig(durability=fleet.durability)
    try:
        for data_dir in fleet.data_dirs:
            await drain_all(data_dir, config, fleet.redis.url, store)
        doctor = await examine(fleet.data_dirs[0], config, fleet.redis.url, store)
        columns = (
            col(DecisionRow.decision_id),
            col(DecisionRow.replica),
            col(DecisionRow.seq),
            col(DecisionRow.record),
        )
        with store.transaction("read decisions") as connection:
            found = connection.execute(select(*columns)).all()
    finally:
        store.close()
    return [Row(row[0], from_json(row[3])["request_id"], row[1], row[2]) for row in found], doctor


def report(outcome: Outcome) -> None:
    killed = ", ".join(f"{victim.value} {sum(kill.victim is victim for kill in outcome.kills)}x" for victim in Victim)
    verdict, doctor = outcome.verdict, outcome.doctor
    console.print(f"[bold]{outcome.durability.value}[/]: killed {killed}")
    lines = (
        f"clients: {verdict.answers:,} answers seen to their end, {outcome.failures:,} requests without one",
        f"rows: {verdict.rows:,}, repeated {len(verdict.twice_asked):,}",
        f"answers lost within {WINDOW_S[outcome.durability]:g} s before a kill: {len(verdict.excused):,}, "
        f"otherwise: {len(verdict.lost):,}",
        f"doctor: {doctor.decisions:,} decisions, {doctor.rows:,} rows, {doctor.lost:,} lost, "
        f"{doctor.duplicates:,} duplicates",
    )
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)
    for problem in outcome.problems[:SHOWN_PROBLEMS]:
        console.print(f"  [red]{problem}[/]", soft_wrap=True)
    if (hidden := len(outcome.problems) - SHOWN_PROBLEMS) > 0:
        console.print(f"  [red]and {hidden:,} more[/]", soft_wrap=True)


def main(
    seconds: Annotated[float, typer.Option(min=5, help="Time under load, shared by the modes.")] = 600.0,
    seed: Annotated[int | None, typer.Option(help="Of the plan of kills; a new one when not given.")] = None,
    durability: Annotated[Durability | None, typer.Option(help="One mode; all of them when not given.")] = None,
) -> None:
    """Kill at random, then check the history."""
    chosen = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    modes = list(Durability) if durability is None else [durability]
    console.print(f"seed {chosen}: {seconds:g} s over {len(modes)} modes; repeat with --seed {chosen}")
    for room in ("gateway", "decision_log"):
        logging.getLogger(room).setLevel(logging.ERROR)  # each kill of Redis would be a line
    has_failed = False
    for mode in modes:
        with tempfile.TemporaryDirectory(prefix="coe-chaos-") as folder:
            outcome = asyncio.run(run_chaos(Path(folder), chosen, seconds / len(modes), mode))
        report(outcome)
        has_failed |= bool(outcome.problems)
    sys.exit(has_failed)


if __name__ == "__main__":
    typer.run(main)
