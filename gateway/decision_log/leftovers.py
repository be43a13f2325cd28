"""Spools of replicas that are gone: whoever is alive sends what they left behind."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from pathlib import Path

from gateway.decision_log.frames import scan
from gateway.decision_log.spool import Spool
from gateway.decision_log.spool_files import HIDDEN, read_checkpoint, segment_paths
from gateway.decision_log.stream import DecisionStream
from router.errors import StoreError

READ_RECORDS = 32
"""Records of one pipeline: about 0.5 ms of the event loop, so that answers do not wait for the log."""


async def send_next(spool: Spool, stream: DecisionStream, executor: Executor | None = None) -> int:
    """Moves the oldest records of a spool to the stream, waiting for Redis as long as it takes; 0 when there are none.

    Args:
        executor: runs the file work; None is the loop's own.
    """
    loop = asyncio.get_running_loop()
    payloads = await loop.run_in_executor(executor, spool.read, READ_RECORDS)
    if payloads:
        await stream.send(payloads)
        await loop.run_in_executor(executor, spool.acknowledge, len(payloads))
    return len(payloads)


async def send_leftovers(root: Path, stream: DecisionStream) -> tuple[int, int]:
    """Sends and deletes every spool under `root` that no live process owns: records sent, damaged stretches met.

    Raises:
        OSError: a spool cannot be read.
    """
    sent = damaged = 0
    for folder in await asyncio.to_thread(spool_folders, root):
        spool = Spool(folder, max_bytes=0)
        try:
            await asyncio.to_thread(spool.open)
        except StoreError:
            continue  # its owner lives
        try:
            while count := await send_next(spool, stream):
                sent += count
        finally:
            damaged += spool.damaged
            await asyncio.to_thread(spool.close)
    return sent, damaged


def spool_folders(root: Path) -> list[Path]:
    """Folders of spools, by name; empty when there is no `root`."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(HIDDEN))


def spooled_bytes(root: Path, *, without: str) -> int:
    """Bytes in segments of every spool under `root` but that of replica `without`; owners may be at work."""
    total = 0
    for folder in spool_folders(root):
        if folder.name == without:
            continue
        for path in segment_paths(folder):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
    return total


def spooled_records(root: Path) -> int:
    """Records in every spool under `root` that are not acknowledged. Reads only, so owners may be at work."""
    return sum(unsent_records(folder) for folder in spool_folders(root))


def unsent_records(folder: Path) -> int:
    checkpoint = read_checkpoint(folder)
    total = 0
    for path in segment_paths(folder):
        segment = int(path.stem)
        if segment < checkpoint.segment:
            continue
        try:
            frames = scan(path.read_bytes()).frames
        except FileNotFoundError:
            continue
        start = checkpoint.offset if segment == checkpoint.segment else 0
        total += sum(1 for intact in frames if intact.end > start)
    return total
