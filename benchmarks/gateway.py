"""Measures what a gateway adds to a request: coe in its kinds beside a plain pass-through and LiteLLM's proxy.

    python -m benchmarks.gateway --rounds 5 --out docs/results/gateway.md

Everything runs on this machine: a mock engine and the load generator share one core, the gateway under test has another
one to itself. Each request has a text of its own. All gateways are measured in every round, so that other work of the
machine disturbs all of them alike; ratios are taken within a round. LiteLLM is installed into `--work` if possible.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import uvicorn
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import Response

from base.shipped import DEFAULT_CONFIG, shipped_root
from eval.probe_set import load_probes
from training.datasets.outcomes import write_outcomes
from training.types import OutcomeTable

PATH = "/v1/chat/completions"
REFERENCE = "pass-through"
LITELLM = "LiteLLM proxy"
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a" * 128}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 32, "total_tokens": 62},
    }
).encode()
WORDS = (
    "the",
    "of",
    "river",
    "bridge",
    "number",
    "write",
    "convert",
    "table",
    "query",
    "sum",
    "poem",
    "fix",
    "why",
    "how",
)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """One kind of traffic: requests at once, characters of the last ask, turns of the chat before it."""

    name: str
    concurrency: int
    chars: int
    turns: int = 0


LOADS = (
    Load("200 characters, one at a time", 1, 200),
    Load("200 characters, 16 at once", 16, 200),
    Load("4,000 characters, 16 at once", 16, 4_000),
    Load("chat of 8 turns, 16 at once", 16, 200, turns=8),
    Load("131,000 characters, one at a time", 1, 131_000),
)


@dataclass(frozen=True)
class Subject:
    """A gateway under test. `argv` starts it on port `{port}`; Requests ask for `model` with `key`."""

    name: str
    argv: tuple[str, ...]
    model: str
    key: str = "none"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One measurement: latencies in ms, requests per second, CPU microseconds per request, resident MiB."""

    p50_ms: float
    p99_ms: float
    per_s: float
    cpu_us: float
    rss_mib: float


# The mock engine, the pass-through and the load generator: each a process of its own.


class Mock(asyncio.Protocol):
    """Answers every request with the same completion."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (head := self.buffer.find(b"\r\n\r\n")) >= 0:
            end = head + 4 + content_length(self.buffer[:head])
            if len(self.buffer) < end:
                return
            self.buffer = self.buffer[end:]
            self.transport.write(response_head(len(ANSWER)) + ANSWER)


def content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def response_head(length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % length


async def run_mock(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Mock, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


def run_pass_through(port: int, upstream: str) -> None:
    """The plainest gateway there is: FastAPI on uvicorn, aiohttp as the client; it reads the body's JSON once."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=512)) as app.state.client:
            yield

    app = FastAPI(lifespan=life)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.body()
        json.loads(body)
        headers = {"content-type": "application/json"}
        async with request.app.state.client.post(upstream, data=body, headers=headers) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )


def text_of(rng: random.Random, chars: int) -> str:
    """Words in an order that no other request has."""
    words: list[str] = []
    size = 0
    while size < chars:
        words.append(f"{rng.choice(WORDS)}{rng.randrange(1000)}" if size % 5 == 0 else rng.choice(WORDS))
        size += len(words[-1]) + 1
    return " ".join(words)[:chars]


def request_of(rng: random.Random, load: Load, model: str, key: str) -> bytes:
    messages = [
        {"role": "assistant" if turn % 2 else "user", "content": text_of(rng, 200)} for turn in range(load.turns)
    ]
    messages.append({"role": "user", "content": text_of(rng, load.chars)})
    body = json.dumps({"model": model, "messages": messages, "max_tokens": 32}).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def run_driver(port: int, subject: Subject, load: Load, seconds: float, seed: int) -> None:
    """Keeps `concurrency` requests in flight and prints their latencies as JSON."""
    rng, latencies = random.Random(seed), list[float]()
    until = time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        while time.perf_counter() < until:
            request = request_of(rng, load, subject.model, subject.key)
            start = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"{subject.name}: {head.splitlines()[0].decode()} {(await reader.read(300))!r}")
            await reader.readexactly(content_length(head))
            latencies.append(1e3 * (time.perf_counter() - start))
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(load.concurrency)))
    print(json.dumps({"latencies": latencies, "elapsed_s": time.perf_counter() - begin}))


# The orchestration.


@contextmanager
def process(argv: Sequence[str], core: int, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """Runs a program on one core, in a session of its own, which is ended as a whole."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            ["taskset", "-c", str(core), *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield child.pid
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def session_pids(leader: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                    found.append(int(folder.name))
            except (OSError, IndexError):
                continue
    return found


def cpu_s(leader: int) -> float:
    total = 0
    for pid in session_pids(leader):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def rss_mib(leader: int) -> float:
    pages = 0
    for pid in session_pids(leader):
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_answering(port: int, subject: Subject, log: Path, deadline_s: float = 120.0) -> None:
    """Raises SystemExit with the end of the log when no request succeeds in time."""
    body = json.dumps({"model": subject.model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1})
    until = time.monotonic() + deadline_s
    while True:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{PATH}",
            body.encode(),
            {"content-type": "application/json", "authorization": f"Bearer {subject.key}"},
        )
        try:
            urllib.request.urlopen(request, timeout=10).read()
        except OSError as error:
            if time.monotonic() > until:
                raise SystemExit(f"{subject.name} does not answer ({error}): {log.read_text()[-800:]}") from error
            time.sleep(0.1)
        else:
            return


def measure(
    subject: Subject, loads: Sequence[Load], cores: tuple[int, int], work: Path, seconds: float, seed: int
) -> dict[str, Sample]:
    """Starts one gateway, warms it up, and drives every load through it."""
    port = free_port()
    argv = [word.replace("{port}", str(port)) for word in subject.argv]
    log = work / f"{subject.name.replace(' ', '-').replace(',', '')}.log"
    samples = {}
    with process(argv, cores[0], log, subject.environment) as leader:
        wait_until_answering(port, subject, log)
        drive(port, subject, loads[0], cores[1], 1.0, seed)
        for number, load in enumerate(loads):
            before = cpu_s(leader)
            found = drive(port, subject, load, cores[1], seconds, seed + number + 1)
            latencies = np.array(found["latencies"])
            samples[load.name] = Sample(
                p50_ms=float(np.median(latencies)),
                p99_ms=float(np.quantile(latencies, 0.99)),
                per_s=len(latencies) / found["elapsed_s"],
                cpu_us=1e6 * (cpu_s(leader) - before) / len(latencies),
                rss_mib=rss_mib(leader),
            )
    return samples


def drive(port: int, subject: Subject, load: Load, core: int, seconds: float, seed: int) -> dict[str, list[float]]:
    words = [
        "--role",
        "driver",
        "--port",
        str(port),
        "--subject",
        json.dumps([subject.name, subject.model, subject.key]),
    ]
    words += ["--load", str(LOADS.index(load)), "--seconds", str(seconds), "--seed", str(seed)]
    done = subprocess.run(
        ["taskset", "-c", str(core), sys.executable, "-m", "benchmarks.gateway", *words],
        capture_output=True, text=True, check=False, timeout=seconds + 60,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    return dict(json.loads(done.stdout))


def coe_subject(name: str, model: str, encoder: object, n_experts: int, upstream: str, work: Path) -> Subject:
    """`coe serve` over a router that was fitted on the seed set, with the log on, as shipped."""
    folder = work / name.replace(" ", "-").replace(",", "")
    names = tuple(f"expert-{i}" for i in range(n_experts))
    values = yaml.safe_load((shipped_root() / DEFAULT_CONFIG).read_text())
    values["experts"] = {
        each: {"engine": "vllm", "url": upstream, "model": each, "context_tokens": 131_072} for each in names
    }
    if encoder is not None:
        values["router"]["encoder"] = encoder
    values.pop("retrieval")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = folder / "experts.yaml"
    config.write_text(yaml.safe_dump(values))
    write_outcomes(random_outcomes(names), folder / "data" / "outcomes" / "random")
    words = [sys.executable, "-m", "coe", "train", "--config", str(config), "--data-dir", str(folder / "data")]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    argv = (sys.executable, "-m", "coe", "serve", "--config", str(config), "--data-dir", str(folder / "data"))
    return Subject(name, (*argv, "--port", "{port}"), model)


def random_outcomes(experts: tuple[str, ...]) -> OutcomeTable:
    """Scores by chance: each expert takes some category, as in a measured map."""
    probes, rng = load_probes(), np.random.default_rng(0)
    shape = (len(probes), len(experts))
    return OutcomeTable(
        prompt_ids=tuple(probe.id for probe in probes),
        texts=tuple(probe.text for probe in probes),
        categories=tuple(probe.category for probe in probes),
        splits=("train",) * len(probes),
        experts=experts,
        scores=rng.random(shape).astype(np.float32),
        cost_usd=np.full(shape, np.nan, np.float32),
        output_tokens=np.full(shape, 32, np.float32),
        latency_ms=np.full(shape, 500, np.float32),
        metric="random",
        source="benchmark",
    )


def litellm_subject(upstream: str, work: Path) -> Subject | None:
    """LiteLLM's proxy with one model, or None where it cannot be installed."""
    venv = work / "litellm"
    program = venv / "bin" / "litellm"
    if not program.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(venv)], check=False).returncode
        words = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "litellm[proxy]"]
        if made or subprocess.run(words, check=False).returncode:
            return None
    config = work / "litellm.yaml"
    params = {"model": "openai/mock", "api_base": upstream, "api_key": "none"}
    entry = {"model_name": "expert-0", "litellm_params": params}
    config.write_text(
        yaml.safe_dump({"model_list": [entry], "litellm_settings": {"num_retries": 0, "telemetry": False}})
    )
    argv = (str(program), "--config", str(config), "--host", "127.0.0.1", "--port", "{port}", "--num_workers", "1")
    key = f"sk-{secrets.token_hex(24)}"
    quiet = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
    }
    return Subject(LITELLM, argv, "expert-0", key, quiet)


def subjects_of(upstream: str, work: Path) -> list[Subject]:
    """What is measured. The first one is the mock engine itself, without any gateway."""
    program = (sys.executable, "-m", "benchmarks.gateway", "--role")
    found = [
        Subject("no gateway", (*program, "mock", "--port", "{port}"), "expert-0"),
        Subject(REFERENCE, (*program, "pass-through", "--port", "{port}", "--upstream", upstream), "expert-0"),
        coe_subject("coe, expert named", "expert-0", {"kind": "static"}, 6, upstream, work),
        coe_subject("coe, encoder static", "auto", {"kind": "static"}, 6, upstream, work),
        coe_subject("coe, encoder static, 100 experts", "auto", {"kind": "static"}, 100, upstream, work),
        coe_subject("coe, as shipped", "auto", None, 6, upstream, work),
    ]
    litellm = litellm_subject(upstream, work)
    return [*found, litellm] if litellm else found


def run_rounds(rounds: int, seconds: float, work: Path) -> list[dict[str, dict[str, Sample]]]:
    """One entry a round: subject -> load -> sample."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = (allowed[0], allowed[-1])
    mock_port = free_port()
    upstream = f"http://127.0.0.1:{mock_port}/v1"
    mock = [sys.executable, "-m", "benchmarks.gateway", "--role", "mock", "--port", str(mock_port)]
    found = []
    with process(mock, cores[1], work / "mock.log"):
        subjects = subjects_of(upstream, work)
        for number in range(rounds):
            order = random.Random(number).sample(subjects, len(subjects))
            found.append({s.name: measure(s, LOADS, cores, work, seconds, 1000 * number) for s in order})
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return [{s.name: entry[s.name] for s in subjects} for entry in found]


def middle(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the least and the greatest of the rounds."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def page(rounds: list[dict[str, dict[str, Sample]]], seconds: float, busy: tuple[float, float]) -> str:
    lines = [
        "# What a gateway adds",
        "",
        f"`python -m benchmarks.gateway --rounds {len(rounds)} --seconds {seconds:g}` on {platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} cores ({cpu_name()}), Python {platform.python_version()}: one core for the "
        "gateway and one for the mock engine with the load generator. Each request has its own text; routing and the "
        "decision log are on. Cells are medians of the rounds, with the least and the greatest; ratios are taken "
        "within a round.",
        "",
        f"Load of the machine (runnable processes, one minute): {busy[0]:.1f} before, {busy[1]:.1f} after. "
        "On a machine that others use, compare rows and ratios, not absolute figures. The load generator makes each "
        "text before it times the request, so requests/s includes that time and p50 does not.",
    ]
    for load in LOADS:
        lines += [
            "",
            f"## {load.name}",
            "",
            "| | p50, ms | p99, ms | requests/s | of pass-through | CPU us/request | RSS MiB |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in rounds[0]:
            own = [entry[name][load.name] for entry in rounds]
            ratios = [entry[name][load.name].per_s / entry[REFERENCE][load.name].per_s for entry in rounds]
            cells = (
                middle([s.p50_ms for s in own]),
                middle([s.p99_ms for s in own], 1),
                middle([s.per_s for s in own], 0),
                middle(ratios),
                middle([s.cpu_us for s in own], 0),
                middle([s.rss_mib for s in own], 0),
            )
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return found[0].partition(":")[2].strip() if found else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--out", type=Path, default=Path("docs/results/gateway.md"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "coe-benchmark-gateway")
    parser.add_argument("--role", choices=["mock", "pass-through", "driver"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--upstream", help=argparse.SUPPRESS)
    parser.add_argument("--subject", help=argparse.SUPPRESS)
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "mock":
        asyncio.run(run_mock(options.port))
    elif options.role == "pass-through":
        run_pass_through(options.port, f"{options.upstream}/chat/completions")
    elif options.role == "driver":
        name, model, key = json.loads(options.subject)
        subject = Subject(name, (), model, key)
        asyncio.run(run_driver(options.port, subject, LOADS[options.load], options.seconds, options.seed))
    else:
        if shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2:
            raise SystemExit("this needs Linux with taskset and two cores")
        options.work.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
        before = os.getloadavg()[0]
        rounds = run_rounds(options.rounds, options.seconds, options.work)
        options.out.write_text(page(rounds, options.seconds, (before, os.getloadavg()[0])))


if __name__ == "__main__":
    main()
