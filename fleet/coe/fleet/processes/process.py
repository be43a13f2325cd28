"""One supervised child process: started, waited for, restarted with back-off, stopped.

A process that never became ready is not restarted: its arguments, files or memory are wrong, and another try only hides
that. One that served and then died is, up to `RestartPolicy.max_restarts` times within a window.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shutil
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coe.base.errors import EngineError, RouterError
from coe.base.parent_death import dying_with_parent
from coe.fleet.processes.tasks import happens, stop_task

TAIL_CHARS = 4096
MAX_READ_BYTES = 4 * 1024 * 1024
TAIL_LINES = 7
FIRST_POLL_S, MAX_POLL_S = 0.03, 0.5
LOG_CHECK_S = 30.0

logger = logging.getLogger(__name__)


class ProcessState(StrEnum):
    """State of a process, from starting to stopped."""

    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing_off"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A command to run, and the signs that it is ready.

    Ready means that `is_ready` says so, None asks nothing, and a RouterError of it is told as the cause of an end.
    `log` takes its output. `env` is the whole environment; None inherits ours. `secrets` are values that no message may
    show. `explain` finds the cause of an end in what a life wrote to the log; without one its last lines are told.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    is_ready: Callable[[], Awaitable[bool]] | None = None
    env: Mapping[str, str] | None = None
    start_timeout_s: float = 60.0
    stop_grace_s: float = 10.0
    max_log_bytes: int = 16 * 1024 * 1024
    secrets: tuple[str, ...] = ()
    explain: Callable[[str], str | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """More than `max_restarts` deaths within `window_s` end in failure; delays double from `first_delay_s`."""

    max_restarts: int = 5
    window_s: float = 600.0
    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    jitter: float = 0.25

    def delay_s(self, deaths: int) -> float:
        """Seconds to wait after the `deaths`-th death in a row (from 1), spread by +-`jitter`."""
        bounded = min(self.max_delay_s, self.first_delay_s * 2.0 ** (deaths - 1))
        return bounded * (1.0 + self.jitter * random.uniform(-1.0, 1.0))


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A snapshot for tables and metrics. `reason` says why it is not ready."""

    name: str
    state: ProcessState
    pid: int | None
    restarts: int
    reason: str | None


class SupervisedProcess:
    """Runs one `ProcessSpec` until `stop`. Use from one event loop.

    Args:
        may_restart: asked before one that served and died is started again; where it says no, it counts as stopped.
        turn: entered before each start, left when the child is ready or has ended.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        restarts: RestartPolicy | None = None,
        may_restart: Callable[[], bool] = lambda: True,
        turn: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        self.spec, self._may_restart, self._turn = spec, may_restart, turn
        self._policy = restarts or RestartPolicy()
        self._state = ProcessState.STOPPED
        self._reason: str | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._restarts = 0
        self._log_begins = 0  # at this byte of the log, for the life that runs
        self._settled = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def status(self) -> ProcessStatus:
        pid = self._child.pid if self._child is not None and self._child.returncode is None else None
        return ProcessStatus(self.spec.name, self._state, pid, self._restarts, self._reason)

    def start(self) -> None:
        """Begins; `wait_ready` reports how it went."""
        if self._task is not None:
            raise EngineError(f"{self.spec.name} was started before")
        self._enter(ProcessState.STARTING)
        self._task = asyncio.create_task(self._supervise(), name=f"supervise {self.spec.name}")

    async def wait_ready(self) -> None:
        """Returns once the process serves, after a restart too.

        Raises:
            EngineError: it failed or was stopped; names the process, its exit status, its log file and the last lines.
        """
        await self._settled.wait()
        if self._state is not ProcessState.READY:
            raise EngineError(self._reason or f"{self.spec.name} was stopped")

    async def stop(self) -> None:
        """SIGTERM, `stop_grace_s`, then SIGKILL to the whole group. Safe to call twice and before `start`."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    def _enter(self, state: ProcessState, reason: str | None = None) -> None:
        self._state, self._reason = state, reason
        if state in (ProcessState.READY, ProcessState.FAILED, ProcessState.STOPPED):
            self._settled.set()
        else:
            self._settled.clear()

    async def _supervise(self) -> None:
        """Lives of the child, one after the other, until `stop` or one death too many."""
        deaths: deque[float] = deque()
        has_served = False
        if self.spec.log is not None:
            with contextlib.suppress(OSError):  # the start reports a log that cannot be written at all
                rotate(self.spec.log)
        while True:
            failure = await self._live_once()
            if failure is None:
                return self._enter(ProcessState.STOPPED)
            has_served = has_served or self._state is ProcessState.READY
            deaths.append(time.monotonic())
            while deaths[-1] - deaths[0] > self._policy.window_s:
                deaths.popleft()
            if not has_served or len(deaths) > self._policy.max_restarts:
                logger.error("%s", failure)
                return self._enter(ProcessState.FAILED, failure)
            delay_s = self._policy.delay_s(len(deaths))
            logger.warning("in %.1f s, if it is wanted then, it is started again: %s", delay_s, failure)
            self._enter(ProcessState.BACKING_OFF, failure)
            if await happens(self._stopping, delay_s):
                return self._enter(ProcessState.STOPPED)
            if not self._may_restart():  # asked now, because what is wanted may have changed just before the end
                return self._enter(ProcessState.STOPPED, failure)
            self._restarts += 1
            self._enter(ProcessState.STARTING, failure)

    async def _live_once(self) -> str | None:
        """One life of the child. Why it ended, or None when `stop` ended it."""
        stop = asyncio.create_task(self._stopping.wait())
        async with AsyncExitStack() as life:
            life.callback(stop.cancel)
            turn = await life.enter_async_context(AsyncExitStack())
            entering = asyncio.create_task(turn.enter_async_context(self._turn()))
            await asyncio.wait({entering, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                await stop_task(entering)
                return None
            try:
                child = self._child = await self._launch()
            except (OSError, ValueError) as error:  # no process or file is left; an argument that no program can get
                return self._told(f"cannot be started ({error})")
            over = asyncio.create_task(child.wait())
            life.push_async_callback(asyncio.wait, {over})
            life.push_async_callback(end_child, child, self.spec.stop_grace_s)
            failure = await self._until_ready(over, stop)
            if failure is None and not stop.done():
                self._enter(ProcessState.READY)
                await turn.aclose()
                await self._until_over(over, stop)
                failure = self._told(f"ended with {exit_words(child.returncode)}")
        return None if self._stopping.is_set() else failure

    async def _launch(self) -> asyncio.subprocess.Process:
        """The child in a session of its own, so that the terminal's Ctrl-C reaches us alone and we end it in order."""
        with self.spec.log.open("ab") as log:
            self._log_begins = log.tell()
            return await asyncio.create_subprocess_exec(
                *dying_with_parent(*self.spec.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.spec.env,
                start_new_session=True,
            )

    async def _until_ready(self, over: asyncio.Task[int], stop: asyncio.Task[bool]) -> str | None:
        """None once it serves or `stop` came, else why it does not serve."""
        asking, timeout_s = asyncio.create_task(self._ask_until_ready()), self.spec.start_timeout_s
        await asyncio.wait({asking, over, stop}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        is_late = not (asking.done() or over.done())
        await stop_task(asking)
        if stop.done():
            return None
        if over.done():
            return self._told(f"ended with {exit_words(over.result())} before it was ready")
        try:
            return self._told(f"was not ready after {timeout_s:g} s") if is_late else asking.result()
        except RouterError as error:
            return self._told(f"cannot be used: {error}")

    async def _ask_until_ready(self) -> None:
        poll_s = FIRST_POLL_S
        while self.spec.is_ready is not None and not await self.spec.is_ready():
            await asyncio.sleep(poll_s)
            poll_s = min(MAX_POLL_S, poll_s * 1.2)

    async def _until_over(self, over: asyncio.Task[int], stop: asyncio.Task[bool]) -> None:
        """Returns at the child's end or at `stop`; keeps its log within bounds meanwhile."""
        while not (over.done() or stop.done()):
            await asyncio.wait({over, stop}, timeout=LOG_CHECK_S, return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(OSError):  # a full disk must not end a child that serves
                keep_bounded(self.spec.log, self.spec.max_log_bytes)

    def _told(self, what: str) -> str:
        """`NAME what happened`, the log's place, and the cause if it is known or the last lines, without secrets."""
        log = written(self.spec.log, self._log_begins)
        lines = [line.rstrip() for line in log[-TAIL_CHARS:].splitlines() if line.strip()]
        cause = self.spec.explain(log)
        text = "".join(f"\n  {line}" for line in ([cause] if cause else lines[-TAIL_LINES:]))
        for secret in self.spec.secrets:
            text = text.replace(secret, "***")
        return f"{self.spec.name} {what}; log: {self.spec.log}{text}"


async def end_child(child: asyncio.subprocess.Process, grace_s: float = 10.0) -> None:
    """SIGTERM, `grace_s`, SIGKILL; then SIGKILL to the rest of the process group, where it leads one."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), grace_s)
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()


def exit_words(code: int | None) -> str:
    """`exit status 3` or `signal SIGKILL`."""
    if code is None or code >= 0:
        return f"exit status {code}"
    return f"signal {signal.Signals(-code).name}"


async def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Returns True when a GET gives 200."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, OSError):
        return False


def rotate(log: Path) -> None:
    """Keeps one older log next to the new one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(older(log))


def keep_bounded(log: Path, max_bytes: int) -> None:
    """Moves a log that grew too large aside. The child's handle appends, so it continues at the start of the file."""
    if log.exists() and log.stat().st_size > max_bytes:
        shutil.copyfile(log, older(log))
        os.truncate(log, 0)


def older(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")


def written(log: Path, begin: int) -> str:
    """What stands in a log from a byte on, but for what is far from its end."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(begin if begin <= size else 0, size - MAX_READ_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
