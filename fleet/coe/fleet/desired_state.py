"""`<data>/engines/wishes.json`: which engines people and schedulers want stopped; who runs them and gateways follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import BaseModel

from coe.base.errors import BackendError, DataError, EngineError
from coe.base.whole_files import locked, write_whole
from coe.fleet.process import ProcessState
from coe.fleet.vllm_addresses import EngineRecord, read_vllm, vllm_file

LOOK_EVERY_S = 0.1


class DesiredState(BaseModel, frozen=True):
    """Names of engines that are to be stopped."""

    stopped: frozenset[str] = frozenset()


def read_wishes(data_dir: Path) -> DesiredState:
    """Raises DataError where the file is damaged."""
    file = wishes_file(data_dir)
    try:
        return DesiredState.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return DesiredState()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is damaged; delete it") from error


def change_wishes(data_dir: Path, change: Callable[[DesiredState], DesiredState]) -> None:
    """Replaces the wishes by what `change` makes of them; of two changes at once, none is lost."""
    file = wishes_file(data_dir)
    with locked(file.with_suffix(".lock")):
        write_whole(file, change(read_wishes(data_dir)).model_dump_json())


def wishes_file(data_dir: Path) -> Path:
    return vllm_file(data_dir).with_name("wishes.json")


class DesiredProcesses:
    """Starts and stops the engines of this host by asking who runs them; for `VllmActuator`.

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
        change_wishes(self._data_dir, lambda was: DesiredState(stopped=was.stopped | names))
        await self._until(expert, names, ProcessState.STOPPED)

    async def _until(
        self, expert: str, names: frozenset[str], state: ProcessState, ended: Collection[int | None] = ()
    ) -> None:
        """Waits for a state, and for another process where that one `ended`. Raises BackendError.

        Those that are to be ready are wished for whenever they are found stopped: whoever runs an engine gives it up
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
                down = frozenset(each.name for each in late if each.state is ProcessState.STOPPED)
                if not down.isdisjoint(read_wishes(self._data_dir).stopped):
                    self._no_longer_stopped(down)
            if time.monotonic() > until_s:
                raise BackendError(
                    f"the engine of {expert} is {late[0].state} after {self._timeout_s:g} s, not {state}"
                )
            await asyncio.sleep(LOOK_EVERY_S)

    def _no_longer_stopped(self, names: frozenset[str]) -> None:
        change_wishes(self._data_dir, lambda was: DesiredState(stopped=was.stopped - names))

    def _engines(self, expert: str) -> list[EngineRecord]:
        """Raises BackendError where nobody runs them."""
        try:
            return read_vllm(self._data_dir).engines_of(expert)
        except (EngineError, DataError) as error:
            raise BackendError(str(error), status=503) from error
