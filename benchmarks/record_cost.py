"""Measures what the decision log costs a record: processor time by stage, SQL statements, system calls, bytes.

    python -m benchmarks.record_cost [--records 4000] [--rounds 5] [--durability sync] [--database-url URL]

Records reach a real `DecisionLog` as 1,000 requests a second would bring them (20 in every 20 ms), then the embedded
Valkey and SQLite, or the database of the URL. "gateway" and "log" are this process's processor time while it writes
and while it consumes; `strace -c -f -w` around it counts system calls.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import event

from coe.decision_log.consumer import Consumer
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionInputs, TerminalState
from coe.decision_log.default_database import default_database_url
from coe.decision_log.privacy import new_decision_id
from coe.decision_log.sink import DecisionLog
from coe.gateway.chat.log import record_of
from coe.gateway.chat_request import ChatRequest
from coe.gateway.exchange import AnswerFacts, Calls, ChatRow, Decided, Ending, RequestContext
from coe.gateway.keys.grants import EVERYBODY
from coe.gateway.lifecycle.composition import spare_what_is_there
from coe.router.config.log import Durability, LogConfig
from coe.router.prices.usage import Usage
from coe.router.types import DecisionReason, QueryFacts, RoutingDecision
from coe_offline.redis_server import RedisServer

GROUP, PERIOD_S = 20, 0.02
EXPERTS = tuple(f"expert-{number}" for number in range(6))
CATEGORIES = ("code", "math", "writing", "law", "general")
EMBEDDING_BYTES = 2 * 512
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")

console = Console(highlight=False)


def named() -> Decided:
    """The decision of a client that named the expert."""
    return Decided(
        RoutingDecision(
            expert=EXPERTS[0],
            category="general",
            confidence=1.0,
            is_fallback=False,
            reason=DecisionReason.EXPLICIT,
            likely_category="general",
            uncertainty=0.0,
            ranking=EXPERTS[:1],
            eligible=EXPERTS[:1],
            eligible_probs=(1.0,),
            propensity=1.0,
            router_version="none",
        )
    )


def routed() -> Decided:
    """A decision among six experts, with the embedding that it was made from."""
    decision = RoutingDecision(
        expert=EXPERTS[2],
        category="math",
        confidence=0.8431,
        is_fallback=False,
        reason=DecisionReason.MAP,
        likely_category="math",
        uncertainty=0.4012,
        runner_up=EXPERTS[1],
        ranking=EXPERTS,
        eligible=EXPERTS,
        eligible_probs=(0.01, 0.01, 0.95, 0.01, 0.01, 0.01),
        predicted_quality=tuple(0.61234567 + number / 97 for number in range(6)),
        predicted_cost_usd=tuple(0.00012345 * number for number in range(6)),
        predicted_wait_ms=tuple(512.25 + number for number in range(6)),
        category_probs={name: 0.8431 / (1 + place) for place, name in enumerate(CATEGORIES)},
        threshold=0.712345,
        seed=123456789,
        propensity=0.95,
        router_version="0f3c2a9e8b7d6c5a",
    )
    inputs = DecisionInputs(
        encoder="e" * 32, features="f" * 32, settings="s" * 32, facts=QueryFacts(1, prompt_chars=200)
    )
    return Decided(decision, inputs, os.urandom(EMBEDDING_BYTES))


def row_of(decided: Decided, number: int) -> ChatRow:
    chat = ChatRequest(
        body={},
        model="auto",
        is_stream=False,
        text=f"question {number}: " + "why is the river wide " * 9,
        facts=QueryFacts(prompt_chars=200),
        session=f"{number:016x}",
    )
    names = f"req-{number:024x}", new_decision_id(), EVERYBODY, chat.session, chat.session
    row = ChatRow(RequestContext(*names, time.time(), time.perf_counter(), time.perf_counter()), chat)
    usage = Usage(prompt_tokens=30, completion_tokens=32)
    row.decided, row.calls = decided, Calls(overhead_ms=0.41234, expert=decided.decision.expert)
    row.answer = AnswerFacts(finish_reason="stop", usage=usage, ttft_ms=5.1234)
    row.ending = Ending(TerminalState.ANSWERED, 200)
    return row


async def cost(
    make: Callable[[], Decided], records: int, durability: Durability, url_of_database: str | None
) -> dict[str, float]:
    """One run over an empty folder: microseconds, statements and bytes of a record."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = RedisServer(folder / "redis")
        url = await redis.start()
        config = LogConfig(durability=durability)
        database = Database(url_of_database or default_database_url(folder))
        log = DecisionLog(data_dir=folder, redis_url=url, config=config)
        consumer = Consumer(redis_url=url, stream=config.stream, database=database, name="c")
        await log.start()
        rows = [row_of(make(), number) for number in range(records)]
        building = 0.0
        spare_what_is_there()
        valkey, before = cpu_us(redis.pid), time.process_time()
        for start in range(0, records, GROUP):
            begin = time.thread_time()
            made = [record_of(row, {}, log.replica, log.next_seq()) for row in rows[start : start + GROUP]]
            building += time.thread_time() - begin
            if log.is_durable:
                await asyncio.gather(*(log.commit(record) for record in made))
            else:
                for record in made:
                    log.append(record)
                await asyncio.sleep(PERIOD_S)
        while log.stats().pending:
            await asyncio.sleep(PERIOD_S)
        found["gateway"] = 1e6 * (time.process_time() - before) / records
        found["of it building"] = 1e6 * building / records
        found["valkey, taking"] = (cpu_us(redis.pid) - valkey) / records
        statements = count_statements(database)
        valkey, before, begin = cpu_us(redis.pid), time.process_time(), time.perf_counter()
        stats = await consumer.drain()
        found["log"] = 1e6 * (time.process_time() - before) / records
        found["valkey, giving"] = (cpu_us(redis.pid) - valkey) / records
        found["records drained per second"] = records / (time.perf_counter() - begin)
        found["SQL statements"] = statements.total() / records
        assert stats.written == records, stats
        await log.aclose()
        await consumer.aclose()
        database.close()
        if url_of_database is None:
            found["database bytes"] = (folder / "coe.db").stat().st_size / records
        await redis.stop()
    return found


def count_statements(database: Database) -> Counter[str]:
    """Counts what is sent to the database from now on."""
    seen: Counter[str] = Counter()

    @event.listens_for(database._engine, "before_cursor_execute")
    def count(connection: object, cursor: object, statement: str, *_: object) -> None:
        seen[statement[:20]] += 1

    return seen


def cpu_us(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_US


def main(
    records: Annotated[int, typer.Option(min=100)] = 4000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    durability: Durability = Durability.ASYNC,
    database_url: Annotated[str | None, typer.Option(help="of an empty database; default: SQLite")] = None,
) -> None:
    """Print the median of the rounds."""
    kinds = {"expert named": named, "routed": routed}
    rows = {
        name: [asyncio.run(cost(make, records, durability, database_url)) for _ in range(rounds)]
        for name, make in kinds.items()
    }
    table = Table("microseconds a record", *kinds)
    for stage in rows["routed"][0]:
        table.add_row(stage, *(f"{statistics.median(run[stage] for run in rows[name]):,.2f}" for name in kinds))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
