"""`<data>/engines/wishes.json`: what people and schedulers want of engines; `coe experts up` and gateways follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from base.errors import BackendError, DataError, EngineError
from fleet.process import ProcessState
from fleet.vllm_addresses import EngineRecord, read_vllm, replace_text, vllm_file

LOOK_EVERY_S = 0.1


class Wishes(BaseModel):
    """Experts whose engine is to be stopped, and those that are never to sleep."""

    model_config = ConfigDict(frozen=True)

    stopped: frozenset[str] = frozenset()
    pinned: frozenset[str] = frozenset()


def read_wishes(data_dir: Path) -> Wishes:
    """Raises DataError where the file is damaged."""
    file = wishes_file(data_dir)
    try:
        return Wishes.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Wishes()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is damaged; delete it") from error


def change_wishes(data_dir: Path, change: Callable[[Wishes], Wishes]) -> None:
    """Replaces the wishes by what `change` makes of them; of two changes at once, none is lost."""
    import fcntl

    file = wishes_file(data_dir)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        replace_text(file, change(read_wishes(data_dir)).model_dump_json())


def wishes_file(data_dir: Path) -> Path:
    return vllm_file(data_dir).with_name("wishes.json")


class WishedProcesses:
    """Starts and stops the engines of a `coe experts up` from another process; for `VllmActuator`.

    Args:
        timeout_s: longest start or stop.
    """

    def __init__(self, data_dir: Path, timeout_s: float = 1800.0) -> None:
        self._data_dir, self._timeout_s = data_dir, timeout_s

    def is_coming(self, expert: str) -> bool:
        """Returns True where the engine runs, or is started again after it has ended."""
        try:
            return self._engine(expert).state not in (ProcessState.STOPPED, ProcessState.FAILED)
        except BackendError:
            return False

    async def start(self, expert: str) -> None:
        """Starts the engine, also one that failed; waits for one that is being started. Raises BackendError."""
        engine = self._engine(expert)
        if engine.state is ProcessState.FAILED:
            await self.stop(expert)
        experts = frozenset(engine.experts)
        change_wishes(self._data_dir, lambda was: was.model_copy(update={"stopped": was.stopped - experts}))
        await self._until(expert, ProcessState.READY)

    async def stop(self, expert: str) -> None:
        """Ends the engine. Raises BackendError."""
        self._engine(expert)
        change_wishes(self._data_dir, lambda was: was.model_copy(update={"stopped": was.stopped | {expert}}))
        await self._until(expert, ProcessState.STOPPED)

    async def _until(self, expert: str, state: ProcessState) -> None:
        until_s = time.monotonic() + self._timeout_s
        while (now := self._engine(expert)).state is not state:
            if now.state is ProcessState.FAILED and state is ProcessState.READY:
                raise BackendError(f"the engine of {expert} does not start; log: {now.log}")
            if time.monotonic() > until_s:
                raise BackendError(f"the engine of {expert} is {now.state} after {self._timeout_s:g} s, not {state}")
            await asyncio.sleep(LOOK_EVERY_S)

    def _engine(self, expert: str) -> EngineRecord:
        """Raises BackendError where no `coe experts up` runs it."""
        try:
            return read_vllm(self._data_dir).engine_of(expert)
        except (EngineError, DataError) as error:
            raise BackendError(str(error), status=503) from error
