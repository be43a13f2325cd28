"""The memory of GPUs that fake servers share: a file for each process and GPU, in one folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from base.errors import EngineError


class OutOfMemoryError(EngineError):
    """A GPU has less free memory than is asked for."""


class Card:
    """Memory that one process holds of its GPUs. Without a folder nobody shares them.

    Args:
        folder: the same for all fakes of a host; files of processes that have died do not count.
        devices: the GPUs that hold this process, as in CUDA_VISIBLE_DEVICES.
        size_gib: of each GPU.
    """

    def __init__(self, folder: Path | None, devices: Iterable[str], size_gib: float) -> None:
        self._folder, self._devices, self.size_gib = folder, tuple(devices), size_gib
        self.held_gib = 0.0

    def hold(self, gib: float) -> None:
        """Holds that much of each GPU instead of what it held.

        Raises:
            OutOfMemoryError: others leave less.
        """
        if self._folder is None:
            self._take(gib, dict.fromkeys(self._devices, 0.0))
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._take(gib, {device: others_gib(self._folder, device) for device in self._devices})
            for device in self._devices:
                (self._folder / f"{device}.{os.getpid()}").write_text(str(gib))

    def _take(self, gib: float, others: dict[str, float]) -> None:
        for device, held_gib in others.items():
            if gib > self.size_gib - held_gib + 1e-6:
                raise OutOfMemoryError(
                    f"CUDA out of memory: GPU {device} has {self.size_gib - held_gib:.2f} GiB free of "
                    f"{self.size_gib:.2f} GiB; wanted {gib:.2f} GiB"
                )
        self.held_gib = gib


def others_gib(folder: Path, device: str) -> float:
    """GiB of a GPU that other living processes hold."""
    held_gib = 0.0
    for file in folder.glob(f"{device}.*"):
        pid = int(file.suffix[1:])
        if pid != os.getpid() and is_alive(pid):
            held_gib += float(file.read_text() or 0)
    return held_gib


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
