"""Measures what a gateway adds to a request: coe in its kinds beside a plain pass-through and LiteLLM's proxy.

    python -m benchmarks.gateway --rounds 3 --texts prompts.json --out docs/results/gateway.md
    python -m benchmarks.gateway --quick

Everything runs on this machine: a mock engine and the load generator share one core, the gateway under test has another
one to itself. Each request has a prompt of its own: of `--texts`, a JSON list, or of
`benchmarks.gateway_texts`. All gateways are measured in every round, each time in another order,
so that other work of the machine disturbs all of them alike; ratios are taken within a round. Routers and LiteLLM are
kept under `--work` for the next run with the same code and composition.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.gateway_load import LOADS, ONE, PACED, Load
from benchmarks.gateway_page import Measured, Round, Sample, bars_table, page
from benchmarks.gateway_subjects import (
    Running,
    Subject,
    all_subjects,
    cpu_s,
    process,
    rss_mib,
    running,
)
from benchmarks.gateway_texts import described, texts_file
from coe.fleet.hosts.engine_plans import free_port

QUICK_S, WARM_UP_S = 1.0, 1.0


def measure(subject: Subject, cores: tuple[int, int], work: Path, texts: Path, seconds: float, seed: int) -> Measured:
    """Starts one gateway, warms it up, and drives every load through it."""
    with running(subject, cores[0], work) as started:
        drive(started, subject, ONE, texts, cores[1], WARM_UP_S, seed)
        samples = {}
        for number, load in enumerate(LOADS):
            before = cpu_s(started.leader)
            # A paced stream lasts a second: all begin at once, and none is begun again.
            lasts_s = 0.5 if load is PACED else seconds
            found = drive(started, subject, load, texts, cores[1], lasts_s, seed + 100_000 * (number + 1))
            samples[load.name] = sample_of(found, cpu_s(started.leader) - before)
        return Measured(started.ready_s, started.answered_s, rss_mib(started.leader), samples)


def drive(
    started: Running, subject: Subject, load: Load, texts: Path, core: int, seconds: float, seed: int
) -> dict[str, list[float]]:
    asked = {"port": started.port, "model": subject.model, "key": subject.key, "seconds": seconds, "seed": seed}
    asked |= {"load": LOADS.index(load), "texts": str(texts)}
    words = [sys.executable, "-m", "benchmarks.gateway_load", "drive", json.dumps(asked)]
    done = subprocess.run(
        ["taskset", "-c", str(core), *words], capture_output=True, text=True, check=False, timeout=seconds + 60
    )
    if done.returncode:
        raise SystemExit(f"{subject.name}, {load.name}: {done.stderr or done.stdout}")
    return dict(json.loads(done.stdout))


def sample_of(found: dict[str, list[float]], cpu: float) -> Sample:
    latencies = found["latencies"]

    def quantile(name: str, share: float) -> float:
        return float(np.quantile(found[name], share)) if found[name] else float("nan")

    return Sample(
        p50_ms=quantile("latencies", 0.5),
        p99_ms=quantile("latencies", 0.99),
        per_s=len(latencies) / float(found["elapsed_s"]),
        cpu_us=1e6 * cpu / len(latencies),
        first_ms=quantile("firsts", 0.5),
        gap_p99_ms=quantile("gaps", 0.99),
        frames=int(found["frames"]),
        expected_frames=int(found["expected"]),
    )


def run_rounds(rounds: int, seconds: float, work: Path, texts: Path) -> list[Round]:
    """One entry a round: subject -> what was measured, in the order of the page."""
    allowed = sorted(os.sched_getaffinity(0))
    cores, port = (allowed[0], allowed[-1]), free_port()
    engine = [sys.executable, "-m", "benchmarks.gateway_load", "engine", str(port)]
    found = []
    with process(engine, cores[1], work / "engine.log", {}):
        subjects = all_subjects(f"http://127.0.0.1:{port}/v1", work)
        for number in range(rounds):
            first = number * len(subjects) // rounds
            order = subjects[first:] + subjects[:first]
            measured = {}
            for subject in order:
                measured[subject.name] = measure(subject, cores, work, texts, seconds, 10_000_000 * (number + 1))
                print(f"round {number + 1} of {rounds}: {subject.name}", file=sys.stderr, flush=True)
            found.append({subject.name: measured[subject.name] for subject in subjects})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.5, help="of one measurement")
    parser.add_argument("--quick", action="store_true", help="one short round: prints whether the bars hold, no page")
    parser.add_argument("--texts", type=Path, help="a JSON list of prompts; default: made of labelled queries")
    parser.add_argument("--out", type=Path, default=Path("docs/results/gateway.md"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "coe-benchmark-gateway")
    options = parser.parse_args()
    if shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("this needs Linux with taskset and two cores")
    options.work.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    before = os.getloadavg()[0]
    rounds, seconds = (1, QUICK_S) if options.quick else (options.rounds, options.seconds)
    texts = texts_file(options.texts, options.work)
    found = run_rounds(rounds, seconds, options.work, texts)
    print("\n".join(bars_table(found)))
    if not options.quick:
        words = described(texts, is_given=options.texts is not None)
        options.out.write_text(page(found, seconds, (before, os.getloadavg()[0]), words))


if __name__ == "__main__":
    main()
