"""Spools of replicas that are gone: a live replica sends what they left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

from base.errors import StoreError
from decision_log.replica_status import read_status
from decision_log.spool import Spool
from decision_log.spool_files import HIDDEN, read_checkpoint, segment_paths, sent_bytes
from decision_log.spool_frames import scan
from decision_log.stream import GROUP_RECORDS, STATUS_FIELD, Backoff, DecisionStream


async def send_next(spool: Spool, stream: DecisionStream, executor: Executor | None = None) -> int:
    """Moves the oldest records of a spool to the stream, waiting for Redis as long as it takes; 0 when there are none.

    Args:
        executor: runs the file work; None is the loop's own.
    """
    loop = asyncio.get_running_loop()
    payloads = await loop.run_in_executor(executor, spool.read, GROUP_RECORDS)
    if payloads:
        backoff = Backoff()
        while not await stream.try_send(payloads):
            await backoff.wait()
            payloads = await loop.run_in_executor(executor, spool.read_again, GROUP_RECORDS)
        await loop.run_in_executor(executor, spool.acknowledge, len(payloads))
    return len(payloads)


async def send_leftovers(root: Path, stream: DecisionStream) -> tuple[int, int]:
    """Sends and deletes every spool under `root` that no live process owns: records sent, damaged stretches met.

    How many decisions each of those processes had numbered goes to the stream too.

    Raises:
        OSError: a spool cannot be read; the others were sent all the same.
    """
    sent = damaged = 0
    failed: OSError | None = None
    for folder in await asyncio.to_thread(spool_folders, root):
        try:
            counts = await send_leftover(folder, stream)
        except OSError as error:
            failed = error
        else:
            sent, damaged = sent + counts[0], damaged + counts[1]
    if failed is not None:
        raise failed
    return sent, damaged


async def send_leftover(folder: Path, stream: DecisionStream) -> tuple[int, int]:
    """Sends and deletes one spool unless its owner lives: records sent, damaged stretches met. Raises OSError."""
    spool = Spool(folder, max_bytes=0)
    try:
        await asyncio.to_thread(spool.open)
    except StoreError:
        return 0, 0  # its owner lives
    sent = 0
    try:
        while count := await send_next(spool, stream):
            sent += count
        # Last, because the folder goes once this is in the stream.
        if (status := read_status(folder, is_alive=False, at=time.time())) is not None:
            await stream.send([status.model_dump_json().encode()], STATUS_FIELD)
    finally:
        await asyncio.to_thread(spool.close)
    return sent, spool.damaged


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


def unsent_payloads(folder: Path) -> Iterator[bytes]:
    """Payloads in a spool that are not acknowledged. Reads only, so its owner may be at work."""
    checkpoint = read_checkpoint(folder)
    for place, path in enumerate(segment_paths(folder)):
        try:
            frames = scan(path.read_bytes()).frames
        except FileNotFoundError:
            continue
        ends = [intact.end for intact in frames]
        start = sent_bytes(checkpoint, int(path.stem), is_oldest=place == 0, ends=ends)
        yield from (intact.payload for intact in frames if intact.end > start)
