"""One supervised child process: started, waited for, restarted with back-off, stopped.

A process that never became ready is not restarted: its arguments, files or memory are wrong, and another try only hides
that. One that served and then died is, up to `RestartPolicy.max_restarts` times within a window.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from router.errors import EngineError

LEASH = Path(__file__).with_name("leash.py")
TAIL_BYTES = 4096
TAIL_LINES = 5
FIRST_POLL_S, MAX_POLL_S = 0.03, 0.5
LOG_CHECK_S = 30.0


class ProcessState(StrEnum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing_off"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run and how to tell that it serves.

    Ready means that `ready_file` exists (it is removed before each start) and `ready_url` answers 200; None asks for
    nothing. `env` is the whole environment; None inherits ours. `secrets` are values that no message may show.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    ready_file: Path | None = None
    ready_url: str | None = None
    env: Mapping[str, str] | None = None
    start_timeout_s: float = 60.0
    stop_grace_s: float = 10.0
    max_log_bytes: int = 16 * 1024 * 1024
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """More than `max_restarts` deaths within `window_s` end in failure; delays double from `first_delay_s`."""

    max_restarts: int = 5
    window_s: float = 600.0
    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    jitter: float = 0.25

    def delay_s(self, deaths: int, rng: np.random.Generator) -> float:
        """Seconds to wait after the `deaths`-th death in a row (from 1), spread by +-`jitter`."""
        bounded = min(self.max_delay_s, self.first_delay_s * 2.0 ** (deaths - 1))
        return bounded * (1.0 + self.jitter * float(rng.uniform(-1.0, 1.0)))


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A snapshot for tables and metrics. `since_s` is how long the state lasts; `reason` says why it is not ready."""

    name: str
    state: ProcessState
    pid: int | None
    restarts: int
    since_s: float
    reason: str | None


class SupervisedProcess:
    """Runs one `ProcessSpec` until `stop`. Use from one event loop."""

    def __init__(
        self, spec: ProcessSpec, *, restarts: RestartPolicy | None = None, rng: np.random.Generator | None = None
    ) -> None:
        self.spec = spec
        self._policy = restarts or RestartPolicy()
        self._rng = rng or np.random.default_rng()
        self._state = ProcessState.STOPPED
        self._changed_at = time.monotonic()
        self._reason: str | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._restarts = 0
        self._settled = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def status(self) -> ProcessStatus:
        pid = self._child.pid if self._child is not None and self._child.returncode is None else None
        since_s = time.monotonic() - self._changed_at
        return ProcessStatus(self.spec.name, self._state, pid, self._restarts, since_s, self._reason)

    def start(self) -> None:
        """Begins; `wait_ready` tells how it went."""
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
        self._state, self._changed_at, self._reason = state, time.monotonic(), reason
        if state in (ProcessState.READY, ProcessState.FAILED, ProcessState.STOPPED):
            self._settled.set()
        else:
            self._settled.clear()

    async def _supervise(self) -> None:
        """Lives of the child, one after the other, until `stop` or one death too many."""
        deaths: deque[float] = deque()
        was_ready = False
        while True:
            served_before = was_ready
            failure, was_ready = await self._live_once(was_ready)
            if failure is None:
                self._enter(ProcessState.STOPPED)
                return
            now = time.monotonic()
            if self._state is ProcessState.READY or not served_before:
                deaths_in_row = 0
            deaths.append(now)
            deaths_in_row += 1
