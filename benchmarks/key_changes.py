"""Measures what a change of one key costs a gateway that has many keys.

nice python -m benchmarks.key_changes [--keys 100000] [--rounds 20]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import typer
from sqlalchemy import insert

from coe.decision_log.database import Database
from coe.decision_log.default_database import default_database_url
from coe.decision_log.tables.access import KeyRow
from coe.gateway.keys.grants import Grant
from coe.gateway.keys.key_ring import KeyRing
from coe.gateway.keys.key_store import KeyStore

TEAMS, LOOKS = 100, 100_000


def fill(database: Database, keys: int) -> None:
    grant = Grant().model_dump_json()
    common = {"name": "n", "grant_json": grant, "created_at": 1.0}
    rows = [{"key_id": f"team{i % TEAMS}/{i:012x}", "digest": os.urandom(32)} | common for i in range(keys)]
    with database.transaction("fill") as connection:
        connection.execute(insert(KeyRow), rows)


def main(keys: int = 100_000, rounds: int = 20) -> None:
    with tempfile.TemporaryDirectory() as name:
        database = Database(default_database_url(Path(name)))
        store = KeyStore(database)
        fill(database, keys)
        key_id, _ = store.create("team1", "changes", Grant())
        ring, times = KeyRing(store), []
        for _ in range(1 + rounds):
            begin = time.process_time()
            asyncio.run(ring.look())
            times.append(time.process_time() - begin)
            store.set_grant(key_id, Grant())
        first, *others = times
        ranged = f"{1e3 * min(others):.2f} to {1e3 * max(others):.2f}"
        print(f"all {keys:,} keys: {first:.2f} s of processor time")
        print(f"after a change of one: {1e3 * statistics.median(others):.2f} ms ({ranged})")
        begin = time.perf_counter()
        for _ in range(LOOKS):
            ring.known(key_id)
        print(f"known(): {1e6 * (time.perf_counter() - begin) / LOOKS:.2f} us")
        database.close()


if __name__ == "__main__":
    typer.run(main)
