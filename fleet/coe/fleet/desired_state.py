"""Engines of this host that people and schedulers stop and start, by asking who runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from pathlib import Path

from coe.base.errors import BackendError, DataError, EngineError
from coe.fleet.process import ProcessState
from coe.fleet.vllm_addresses import EngineRecord, mark_stopped, read_vllm

LOOK_EVERY_S = 0.1


class DesiredProcesses:
    """For `VllmActuator`.

    Args:
        timeout_s: longest start or stop.
    """

    def __init__(self, data_dir: Path, timeout_s: float = 1800.0) -> None:
        self._data_dir, self._timeout_s = data_dir, timeout_s

    def is_coming(self, url: str) -> bool:
        """Returns True where the engine at an API root runs, or is started again after it has ended."""
        try:
            engines = read_vllm(self._data_dir).engines
        except DataError:
            return False
        return any(
            each.url == url and each.state not in (ProcessState.STOPPED, ProcessState.FAILED) for each in engines
        )

    async def start(self, expert: str, absent: Collection[str]) -> None:
        """Starts the engines of an expert, also those that failed; waits for those that are being started. Raises
        BackendError.

        Args:
            absent: API roots that nobody reaches: whoever runs an engine there as ready has not noticed yet that it
                ended.
        """
        engines = self._engines(expert)
        ended = {each.pid for each in engines if each.state is ProcessState.READY and each.url in absent}
        failed = frozenset(each.name for each in engines if each.state is ProcessState.FAILED)
        await self._stop(expert, failed)
        await self._until(expert, frozenset(each.name for each in engines), ProcessState.READY, ended)

    async def stop(self, expert: str) -> None:
        """Ends the engines of an expert. Raises BackendError."""
        await self._stop(expert, frozenset(each.name for each in self._engines(expert)))

    async def _stop(self, expert: str, names: frozenset[str]) -> None:
        mark_stopped(self._data_dir, names, True)
        await self._until(expert, names, ProcessState.STOPPED)

    async def _until(
        self, expert: str, names: frozenset[str], state: ProcessState, ended: Collection[int | None] = ()
    ) -> None:
        """Waits for a state, and for another process where that one `ended`. Raises BackendError.

        Those that are to be ready are asked for whenever they are found stopped: whoever runs an engine gives it up
        where it ends asleep, perhaps only now.
        """
        until_s = time.monotonic() + self._timeout_s
        while late := [
            each
            for each in self._engines(expert)
            if each.name in names and (each.state is not state or each.pid in ended)
        ]:
            if state is ProcessState.READY:
                for each in late:
                    if each.state is ProcessState.FAILED:
                        raise BackendError(f"the engine of {expert} does not start; log: {each.log}")
                down = frozenset(each.name for each in late if each.state is ProcessState.STOPPED and each.is_stopped)
                if down:
                    mark_stopped(self._data_dir, down, False)
            if time.monotonic() > until_s:
                raise BackendError(
                    f"the engine of {expert} is {late[0].state} after {self._timeout_s:g} s, not {state}"
                )
            await asyncio.sleep(LOOK_EVERY_S)

    def _engines(self, expert: str) -> list[EngineRecord]:
        """Raises BackendError where nobody runs them."""
        try:
            return read_vllm(self._data_dir).engines_of(expert)
        except (EngineError, DataError) as error:
            raise BackendError(str(error), status=503) from error
