"""`<data>/engines/vllm.json`: the vLLM engines of this host, written by who runs them for gateways and commands.

The file counts while the process that wrote it holds the lock on its folder. A process id would not do: after a crash
another process may have it, in a container always the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel

from coe.base.errors import DataError, EngineError, allowed_values
from coe.base.whole_files import locked, write_whole
from coe.fleet.processes.folder_lock import FolderLock, holder_of, is_held
from coe.fleet.processes.process import ProcessState

FILE_NAME = "vllm.json"

NOBODY = "no vLLM engine runs on this data folder; `coe experts up` or `coe up` starts them"


class Desired(StrEnum):
    """The desired state of an engine."""

    AWAKE = "awake"  # started again whenever it has ended
    ASLEEP = "asleep"  # not started again after it has ended: another engine may have its memory by then
    STOPPED = "stopped"


class EngineRecord(BaseModel, frozen=True):
    """One engine process. `gpus` are the numbers of its GPUs, empty for a CPU; `state` is that of its process, which
    knows all but sleep; `desired` is what others want; `fingerprint` was taken before it ever slept."""

    name: str
    experts: tuple[str, ...]
    url: str
    state: ProcessState
    pid: int | None
    restarts: int
    gpus: str
    log: str
    desired: Desired = Desired.AWAKE
    fingerprint: dict[str, dict[str, float]] = {}


class VllmRecord(BaseModel, frozen=True):
    """The file. No engines: they are starting, or nobody runs them."""

    engines: tuple[EngineRecord, ...]

    @property
    def urls(self) -> dict[str, tuple[str, ...]]:
        """API roots per expert, one of each of its replicas."""
        names = dict.fromkeys(name for engine in self.engines for name in engine.experts)
        return {name: tuple(each.url for each in self.engines if name in each.experts) for name in names}

    def engines_of(self, expert: str) -> list[EngineRecord]:
        """The engines that serve an expert, alike. Raises EngineError."""
        if found := [engine for engine in self.engines if expert in engine.experts]:
            return found
        if not self.engines:
            raise EngineError(NOBODY)
        raise EngineError(f"no engine of this host serves '{expert}'{allowed_values(expert, list(self.urls))}")


def vllm_file(data_dir: Path) -> Path:
    return data_dir / "engines" / FILE_NAME


def claim_vllm(data_dir: Path) -> FolderLock:
    """The right to run the engines of a data folder, until it is released or the process ends.

    Raises:
        EngineError: another process has it, or the folder cannot be written.
    """
    folder = vllm_file(data_dir).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock.try_acquire(folder)
    except OSError as error:
        raise EngineError(f"{folder} cannot hold the addresses of engines ({error.strerror})") from error
    if lock is None:
        raise EngineError(f"process {holder_of(folder)}, another coe, runs the engines of {data_dir}")
    return lock


def write_vllm(data_dir: Path, engines: Sequence[EngineRecord]) -> None:
    """Written at once or not at all."""
    write_whole(vllm_file(data_dir), VllmRecord(engines=tuple(engines)).model_dump_json())


def renew_vllm(data_dir: Path, engines: Sequence[EngineRecord]) -> None:
    """Writes the engines as they are now. What others have written stays: the desired state of an engine, and the
    experts of a process of before."""
    with changing_vllm(data_dir):
        try:
            known = read_vllm(data_dir).engines
        except DataError:  # damaged, until this replaces it
            known = ()
        desired = {each.name: each.desired for each in known}
        experts = {(each.name, each.pid): each.experts for each in known}
        kept = [
            each.model_copy(
                update={
                    "desired": desired.get(each.name, each.desired),
                    "experts": experts.get((each.name, each.pid), each.experts),
                }
            )
            for each in engines
        ]
        write_vllm(data_dir, kept)


def add_to_vllm(data_dir: Path, base: str, expert: str) -> None:
    """Notes that the engines of `base` have loaded an adapter, which is asked for as `expert`."""
    change_vllm(data_dir, lambda each: {"experts": (*each.experts, expert)} if base in each.experts else {})


def desire(data_dir: Path, names: Collection[str], state: Desired) -> None:
    """Tells who runs the engines of these names what they are to be."""
    change_vllm(data_dir, lambda each: {"desired": state} if each.name in names else {})


def change_vllm(data_dir: Path, change: Callable[[EngineRecord], dict[str, object]]) -> None:
    """Writes the engines again with other values, if there are any."""
    with changing_vllm(data_dir):
        record = read_vllm(data_dir)
        changed = [each.model_copy(update=change(each)) for each in record.engines]
        if changed != list(record.engines):
            write_vllm(data_dir, changed)


def changing_vllm(data_dir: Path) -> AbstractContextManager[None]:
    """The lock of whoever reads the engines and writes others; of two changes at once, none is lost."""
    return locked(vllm_file(data_dir).with_suffix(".lock"))


def read_vllm(data_dir: Path) -> VllmRecord:
    """The engines; none when who ran them has ended.

    Raises:
        DataError: the file cannot be read, or is not what `write_vllm` wrote.
    """
    file = vllm_file(data_dir)
    try:
        record = VllmRecord.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return VllmRecord(engines=())
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{file} is damaged; delete it and start the engines again") from error
    return record if is_held(file.parent) else VllmRecord(engines=())
