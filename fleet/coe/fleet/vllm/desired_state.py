"""Engines of this host that people and schedulers stop and start, by asking who runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from coe.base.errors import BackendError, DataError, EngineError
from coe.fleet.processes.process import ProcessState
from coe.fleet.vllm.addresses import Desired, EngineRecord, desire, read_vllm

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
        names = {each.name for each in engines}
        await self._stop(expert, {each.name for each in engines if each.state is ProcessState.FAILED})
        desire(self._data_dir, names, Desired.AWAKE)
        await self._until(expert, names, ProcessState.READY, ended)

    async def stop(self, expert: str) -> None:
        """Ends the engines of an expert. Raises BackendError."""
        await self._stop(expert, {each.name for each in self._engines(expert)})

    def fingerprint(self, url: str) -> Mapping[str, Mapping[str, float]]:
        """Fingerprint that the engine at an API root had when it started; empty if none was recorded."""
        try:
            engines = read_vllm(self._data_dir).engines
        except DataError:
            return {}
        return next((each.fingerprint for each in engines if each.url == url), {})

    def desire(self, expert: str, state: Desired) -> None:
        """Says whether the engines of an expert are started again after they have ended. Nothing happens where this
        host runs none of them."""
        try:
            engines = read_vllm(self._data_dir).engines
            desire(self._data_dir, {each.name for each in engines if expert in each.experts}, state)
        except DataError as error:
            raise BackendError(str(error), status=503) from error

    async def _stop(self, expert: str, names: Collection[str]) -> None:
        desire(self._data_dir, names, Desired.STOPPED)
        await self._until(expert, names, ProcessState.STOPPED)

    async def _until(
        self, expert: str, names: Collection[str], state: ProcessState, ended: Collection[int | None] = ()
    ) -> None:
        """Waits for a state, and for another process where that one `ended`. Raises BackendError."""
        until_s = time.monotonic() + self._timeout_s
        while late := [
            each
            for each in self._engines(expert)
            if each.name in names and (each.state is not state or each.pid in ended)
        ]:
            failed = [each for each in late if each.state is ProcessState.FAILED]
            if failed and state is ProcessState.READY:
                raise BackendError(f"the engine of {expert} does not start; log: {failed[0].log}")
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
