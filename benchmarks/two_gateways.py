"""Gain by a second gateway, on one Redis, one Postgres and one data folder.

    python -m benchmarks.two_gateways [--rounds 5] [--seconds 4] [--model auto | expert-0] [--cpu 0.3]

Each gateway has a core to itself as far as there are cores; the mock engine and the clients, which would be elsewhere,
take part of them. So two ratios are printed: that of the requests a second as they were, a lower bound where clients
and engine share the cores; and that of what the gateways can do with a core each, by the processor time that a request
took them: `2 * (one's time) / (two's time)`. Both are of one round, whose arms follow each other at once.

With `--cpu` each gateway has that part of a core, which the kernel enforces (CFS bandwidth control), and the rest is
for clients, engine, Redis and Postgres: then the ratio of the requests is that of gateways of a given size. It counts
as far as the gateways used what they had, which is printed, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.gateway_load import LOADS, MANY
from benchmarks.gateway_subjects import (
    STATIC,
    Subject,
    coe_subject,
    cpu_s,
    first_chat,
    process,
    wait_until_answered,
)
from benchmarks.gateway_texts import texts_file
from coe.fleet.hosts.engine_plans import free_port
from coe_offline.redis_server import RedisServer
from tests.postgres import running_postgres


@dataclass(frozen=True)
class Arm:
    """So many gateways under load: requests a second, and microseconds of processors that a request took them."""

    gateways: int
    per_s: float
    cpu_us: float
    cores: float


@contextmanager
def limited(leader: int, cpu: float | None) -> Iterator[None]:
    """Holds a gateway to a part of a core, in a control group of its own. Raises OSError where none can be made."""
    if cpu is None:
        yield
        return
    v1, period_us = Path("/sys/fs/cgroup/cpu"), 20_000
    group = (v1 if v1.is_dir() else Path("/sys/fs/cgroup")) / f"coe-{leader}"
    group.mkdir()
    quota_us = round(cpu * period_us)
    try:
        if v1.is_dir():
            (group / "cpu.cfs_period_us").write_text(str(period_us))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {period_us}")
        (group / "cgroup.procs").write_text(str(leader))
        yield
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(pid)
        group.rmdir()


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, str]]:
    """One Redis and one Postgres, as the environment of every gateway."""
    with running_postgres() as database, asyncio.Runner() as runner:
        redis = RedisServer(folder)
        url = runner.run(redis.start())
        try:
            yield {"REDIS_URL": url, "DATABASE_URL": database.replace("postgresql://", "postgresql+psycopg://")}
        finally:
            runner.run(redis.stop())


@dataclass(frozen=True)
class Bench:
    """Everything that stays the same over all rounds."""

    subject: Subject
    environment: dict[str, str]
    work: Path
    texts: Path
    seconds: float
    cpu: float | None


def measured(count: int, bench: Bench, seed: int) -> Arm:
    """Starts gateways on one data folder, and keeps 16 requests at each for some seconds."""
    subject, work, seconds = bench.subject, bench.work, bench.seconds
    cores, folder = sorted(os.sched_getaffinity(0)), work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    assert subject.template is not None
    shutil.copytree(subject.template, folder)
    with ExitStack() as stack:
        ports, leaders = [free_port() for _ in range(count)], []
        for number, port in enumerate(ports):
            argv = [word.replace("{port}", str(port)).replace("{folder}", str(folder)) for word in subject.argv]
            log = work / f"gateway-{number}.log"
            leaders.append(stack.enter_context(process(argv, cores[number % len(cores)], log, bench.environment)))
            wait_until_answered(urllib.request.Request(f"http://127.0.0.1:{port}/readyz"), subject, log)
            wait_until_answered(first_chat(port, subject), subject, log)
        for leader in leaders:
            stack.enter_context(limited(leader, bench.cpu))
        driven(ports, bench, 1.0, seed)  # warms up
        before = sum(map(cpu_s, leaders))
        found = driven(ports, bench, seconds, seed + 1_000_000)
        spent = sum(map(cpu_s, leaders)) - before
    requests = [len(each["latencies"]) for each in found]
    per_s = sum(n / each["elapsed_s"] for n, each in zip(requests, found, strict=True))
    longest = max(float(each["elapsed_s"]) for each in found)
    return Arm(count, per_s, 1e6 * spent / sum(requests), spent / longest)


def driven(ports: list[int], bench: Bench, seconds: float, seed: int) -> list[dict[str, object]]:
    """Measurements by the clients of each gateway, all at once."""
    children = []
    for number, port in enumerate(ports):
        asked = {
            "port": port,
            "model": bench.subject.model,
            "key": bench.subject.key,
            "seconds": seconds,
            "load": LOADS.index(MANY),
            "texts": str(bench.texts),
        }
        words = json.dumps(asked | {"seed": seed + 100_000 * number})
        command = [sys.executable, "-m", "benchmarks.gateway_load", "drive", words]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE))
    return [json.loads(child.communicate(timeout=seconds + 60)[0]) for child in children]


def spread(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=0.5)] = 4.0,
    model: Annotated[str, typer.Option(help="auto, or an expert")] = "auto",
    cpu: Annotated[float | None, typer.Option(min=0.05, max=1, help="part of a core for each gateway")] = None,
    texts: Annotated[
        Path | None, typer.Option(help="a JSON list of prompts; default: made of labelled queries")
    ] = None,
) -> None:
    """Print the median of the rounds, with the least and the largest."""
    port = free_port()
    engine = [sys.executable, "-m", "benchmarks.gateway_load", "engine", str(port)]
    with tempfile.TemporaryDirectory(prefix="coe-two-") as name, stores(Path(name) / "redis") as environment:
        work = Path(name)
        subject = coe_subject(STATIC, model, {"kind": "use_static"}, 6, f"http://127.0.0.1:{port}/v1", work)
        with process(engine, sorted(os.sched_getaffinity(0))[-1], work / "engine.log", {}):
            pairs, bench = [], Bench(subject, environment, work, texts_file(texts, work), seconds, cpu)
            for number in range(rounds):
                counts = (1, 2) if number % 2 else (2, 1)
                arms = {n: measured(n, bench, 7_000_000 * (number + 1)) for n in counts}
                pairs.append((arms[1], arms[2]))
                print(f"round {number + 1} of {rounds}: {arms[1]}, {arms[2]}", file=sys.stderr, flush=True)
    print(f"load average {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} cores, model {model}")
    print(f"requests a second, two over one: {spread([two.per_s / one.per_s for one, two in pairs])}")
    if cpu is not None:
        used = [arm.cores / (cpu * arm.gateways) for pair in pairs for arm in pair]
        print(f"used of {cpu:g} of a core each: {spread(used)}")
    print(f"by processor time, two over one: {spread([2 * one.cpu_us / two.cpu_us for one, two in pairs])}")


if __name__ == "__main__":
    typer.run(main)
