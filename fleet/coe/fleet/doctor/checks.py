"""Checks of this host's engines on models of random weights: starts, both levels of sleep with answers compared, kills
at a bad moment, a GPU that others use, turns by a gateway, and throughput."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import aiohttp

from coe.base.errors import BackendError, EngineError, RouterError
from coe.base.parent_death import coe_words
from coe.cli.progress import Progress
from coe.fleet.gpus import nvidia_smi
from coe.fleet.hosts.engine_plans import free_port, is_healthy
from coe.fleet.hosts.vllm_host import VllmHost
from coe.fleet.processes.process import ProcessSpec, ProcessState, SupervisedProcess
from coe.fleet.residency.fingerprints import is_same
from coe.fleet.residency.types import SLEEPS, TIME_OF, SleepLevel
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.vllm.addresses import EngineRecord, read_vllm
from coe.fleet.vllm.desired_state import DesiredProcesses

HOLD = (
    "import sys, torch; held = torch.empty(int(sys.argv[1]) << 30, dtype=torch.uint8, device='cuda'); "
    "print(held.numel(), flush=True); sys.stdin.read()"
)
"""Takes GiB of a GPU until its input ends."""

MEMORY = re.compile(
    r"Actual usage is (?P<consumed>[\d.]+) GiB for consumed memory.*?, (?P<peak>[\d.]+) GiB for peak activation, and "
    r"(?P<graphs>[\d.]+) GiB for CUDAGraph memory"
)
WEIGHTS = re.compile(r"Model loading took (?P<weights>[\d.]+) GiB")
"""In the log of an engine on a GPU (v1/worker/gpu_worker.py, gpu_model_runner.py)."""

WAKES = re.compile(r'^coe_engine_changes_total\{.*state="awake"\} ([\d.]+)', re.MULTILINE)
FULL = "end what else is on the GPU"  # of faults.yaml
ANSWER_TOKENS, BURSTS, CONTEXT, BACK_S, LOOK_S = 32, 6, 2048, 600.0, 0.1
QUESTION = [{"role": "user", "content": "Say what comes to mind."}]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the page; its verdict is proved, broken or measured."""

    name: str
    verdict: str
    detail: str


@dataclass
class Checks:
    """Checks of the engines that run on a data folder, as `config` says, on one GPU or none. `billions` are parameters
    of each one's model, by its first expert; `python` has vLLM, and `environment` is of processes beside them."""

    data_dir: Path
    billions: Mapping[str, float]
    gpu: str | None
    environment: Mapping[str, str]
    python: str
    config: Path
    tell: Progress
    findings: list[Finding] = field(default_factory=list)
    times: defaultdict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    memory: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    residue_gib: float = 0.0

    async def run(self, host: VllmHost) -> None:
        """All of them. What one finds broken does not keep the others from being tried."""
        free_gib, (first, second, *_) = self.free_gib(), self.billions
        self.actuator = VllmActuator(lambda: read_vllm(self.data_dir).urls, DesiredProcesses(self.data_dir))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self.session:
            await self.check("engines start", self.starts(host))
            await self.check("sleep 1, sleep 2 and wake keep every answer", self.levels(free_gib))
            for doing in ("sleeps", "wakes", "answers"):
                await self.check(f"an engine that is killed while it {doing} comes back", self.killed(first, doing))
            if self.gpu is not None:
                await self.check("a full GPU is told as the reason", self.foreign(host, first))
            await self.check("a gateway starts over engines of which most sleep", self.served(second))
        await self.actuator.aclose()

    async def check(self, name: str, work: Awaitable[str], verdict: str = "proved") -> None:
        self.tell(name)
        try:
            self.findings.append(Finding(name, verdict, await work))
        except (RouterError, OSError, TimeoutError, aiohttp.ClientError) as error:
            self.findings.append(Finding(name, "broken", f"{type(error).__name__}: {error}"))

    async def starts(self, host: VllmHost) -> str:
        begun: dict[str, float] = {}
        is_over = False
        while not is_over:
            is_over = host.starting.done()
            for status, experts in host.fleet.statuses:
                if status.pid is not None:
                    begun.setdefault(status.name, time.monotonic())
                if status.state is ProcessState.READY:
                    self.memory[experts[0]].setdefault("start_s", time.monotonic() - begun[status.name])
            await asyncio.sleep(LOOK_S)
        host.starting.result()
        if failed := [status.reason or status.name for status, _ in host.fleet.statuses if status.pid is None]:
            raise EngineError("; ".join(failed))
        for expert, size in self.billions.items():
            self.times["cold_start_s"].append((size, self.memory[expert]["start_s"]))
            log = Path(self.engine(expert).log).read_text(encoding="utf-8", errors="replace")
            for found in filter(None, (WEIGHTS.search(log), MEMORY.search(log))):
                self.memory[expert] |= {name: float(value) for name, value in found.groupdict().items()}
        return f"{len(self.billions)} engines; {self.seconds()}"

    async def levels(self, before_gib: float) -> str:
        """Each engine goes to both levels and back while the others sleep. The actuator compares its answers."""
        await self.all_asleep()
        self.residue_gib = (before_gib - self.free_gib()) / len(self.billions)
        levels: tuple[SleepLevel, ...] = (1, 2)
        for expert, size in self.billions.items():
            await self.actuator.wake(expert)
            for level, state in zip(levels, SLEEPS, strict=True):
                free_gib = available_gib()
                await self.timed(size, TIME_OF[state, False], self.actuator.sleep(expert, level))
                if level == 1:
                    self.memory[expert]["pinned"] = free_gib - available_gib()
                await self.timed(size, TIME_OF[state, True], self.actuator.wake(expert))
            await self.actuator.sleep(expert, 2)
        models = sum(len(self.engine(expert).fingerprint) for expert in self.billions)
        return f"{models} models and adapters; {self.seconds()}"

    async def all_asleep(self) -> None:
        for expert in self.billions:
            await self.actuator.sleep(expert, 2)

    async def timed(self, size: float, name: str, change: Awaitable[None]) -> None:
        begun_s = time.monotonic()
        await change
        self.times[name].append((size, time.monotonic() - begun_s))

    def seconds(self) -> str:
        """Medians of all times by size, in words."""
        found = []
        for name in sorted(self.times):
            each = " and ".join(f"{seconds:.2f} s for {size:.2g}B" for size, seconds in self.medians(name))
            found.append(f"{name[:-2].replace('_', ' ')} {each}")
        return ", ".join(found)

    def medians(self, name: str) -> list[tuple[float, float]]:
        """Seconds by billions of parameters, the smallest first."""
        by_size = defaultdict(list)
        for size, seconds in self.times[name]:
            by_size[size].append(seconds)
        return [(size, median(seconds)) for size, seconds in sorted(by_size.items())]

    async def killed(self, expert: str, doing: str) -> str:
        """Kills an engine, and has it woken. Raises BackendError where the new process answers otherwise."""
        await self.actuator.wake(expert)
        before = self.engine(expert)
        if before.pid is None:
            raise BackendError(f"the engine of {expert} has no process to end")
        if doing != "answers":
            await self.actuator.sleep(expert, 1)
        works: dict[str, Callable[[], Awaitable[object]]] = {
            "sleeps": partial(asyncio.sleep, 0),
            "wakes": partial(self.actuator.wake, expert),
            "answers": partial(self.ask, before.url, expert, CONTEXT // 2),
        }
        work = asyncio.ensure_future(works[doing]())
        await asyncio.sleep(LOOK_S / 2)
        os.kill(before.pid, signal.SIGKILL)
        killed_s = time.monotonic()
        with suppress(aiohttp.ClientError, BackendError):
            await work
        async with asyncio.timeout(BACK_S):
            while doing == "sleeps" and self.engine(expert).state is not ProcessState.STOPPED:
                await asyncio.sleep(LOOK_S)
            is_back = False
            while not is_back:
                await asyncio.sleep(LOOK_S)
                with suppress(BackendError):
                    await self.actuator.wake(expert)
                    is_back = self.engine(expert).pid not in (before.pid, None)
        after = self.engine(expert).fingerprint
        if others := [name for name, answer in before.fingerprint.items() if not is_same(answer, after.get(name, {}))]:
            raise BackendError(f"{', '.join(others)} answers otherwise than before")
        return f"back after {time.monotonic() - killed_s:.1f} s, with the same answers"

    async def foreign(self, host: VllmHost, expert: str) -> str:
        """An engine cannot start beside another process that leaves 1 GiB."""
        await self.actuator.stop(expert)
        pipe, gib = asyncio.subprocess.PIPE, int(self.free_gib()) - 1
        words = (self.python, "-c", HOLD, str(gib))
        other = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=self.environment)
        try:
            if other.stdout is None or not await asyncio.wait_for(other.stdout.readline(), BACK_S):
                raise EngineError(f"the other process got no {gib} GiB")
            with suppress(BackendError):
                await self.actuator.wake(expert)
            reason = next(status.reason or "" for status, experts in host.fleet.statuses if expert in experts)
            if FULL not in reason:
                raise EngineError(f"the reason is not told: {reason or 'it started'}")
            return f"refused beside {gib} GiB of another process"
        finally:
            other.kill()
            await other.wait()
            await self.actuator.wake(expert)

    async def served(self, awake: str) -> str:
        """Turns and throughput, by a gateway over these engines."""
        await self.all_asleep()
        await self.actuator.wake(awake)
        port, places = free_port(), ("--config", str(self.config), "--data-dir", str(self.data_dir))
        argv = coe_words("serve", *places, "--port", str(port), "--no-learn")
        log = self.data_dir / "engines" / "gateway.log"
        process = SupervisedProcess(ProcessSpec("gateway", argv, log, is_healthy(port, "healthz"), self.environment))
        process.start()
        try:
            await process.wait_ready()
            url = f"http://127.0.0.1:{port}/v1"
            await self.check("engines take turns for requests by name", self.turns(url))
            await self.check("throughput", self.throughput(url, awake), "measured")
        finally:
            await process.stop()
        return f"with {awake} awake"

    async def turns(self, url: str) -> str:
        """Requests by name, in bursts, for experts of which some sleep: each is answered by its own."""
        drawn, names, waits = random.Random(0), [*self.billions], list[float]()
        for _ in range(BURSTS):
            burst = drawn.choices(names, weights=range(len(names), 0, -1), k=4)
            waits += await asyncio.gather(*(self.ask(url, expert, 4) for expert in burst))
        async with self.session.get(url.replace("/v1", "/metrics")) as answer:
            wakes = sum(map(float, WAKES.findall(await answer.text())))
        return f"{len(waits)} requests, {wakes:.0f} wakes; answers in {median(waits):.2f} s, at most {max(waits):.2f}"

    async def throughput(self, url: str, expert: str) -> str:
        direct, found = self.engine(expert).url, []
        for at_once in (1, 16) if self.gpu is None else (1, 16, 64):
            rates = {}
            for root in (url, direct, url, direct):  # the first of each warms up, and wakes the engine
                begun_s = time.monotonic()
                for _ in range(2):
                    await asyncio.gather(*(self.ask(root, expert, ANSWER_TOKENS) for _ in range(at_once)))
                rates[root] = 2 * at_once * ANSWER_TOKENS / (time.monotonic() - begun_s)
            found.append(f"{at_once} at once {rates[direct]:.0f} tokens/s, through coe {rates[url]:.0f}")
        return "; ".join(found)

    async def ask(self, root: str, expert: str, tokens: int) -> float:
        """Seconds of an answer. Raises BackendError where it is not one of this expert."""
        begun_s, asked = time.monotonic(), {"model": expert, "messages": QUESTION, "temperature": 0}
        body = asked | dict.fromkeys(("max_tokens", "min_tokens"), tokens)
        async with self.session.post(f"{root}/chat/completions", json=body) as answer:
            found = await answer.json()
            if answer.status != 200 or found["model"] != expert:
                raise BackendError(f"{expert}: status {answer.status}: {str(found)[:200]}")
        return time.monotonic() - begun_s

    def engine(self, expert: str) -> EngineRecord:
        return read_vllm(self.data_dir).engines_of(expert)[0]

    def free_gib(self) -> float:
        """Of the GPU."""
        query = ("--query-gpu=memory.free", "--format=csv,noheader,nounits", "-i", str(self.gpu))
        return 0.0 if self.gpu is None else float(nvidia_smi(*query)) / 1024


def available_gib() -> float:
    """Of the host's memory."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) / 2**20 if found else 0.0
