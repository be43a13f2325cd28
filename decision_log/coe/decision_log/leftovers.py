"""Spools of dead replicas, which a live replica sends."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from pathlib import Path

from coe.base.errors import StoreError
from coe.decision_log.replica_status import read_status
from coe.decision_log.spool import Spool, spool_folders
from coe.decision_log.stream import GROUP_RECORDS, STATUS_FIELD, DecisionStream


async def send_next(spool: Spool, stream: DecisionStream, executor: Executor | None = None) -> int:
    """Move the oldest records of a spool to the stream, however long Redis takes; return their number.

    Args:
        executor: runs the file work; None is the loop's own.
    """
    loop = asyncio.get_running_loop()
    payloads = await loop.run_in_executor(executor, spool.read, GROUP_RECORDS)
    if payloads:
        await stream.send(payloads)
        await loop.run_in_executor(executor, spool.acknowledge, len(payloads))
    return len(payloads)


async def send_leftovers(root: Path, stream: DecisionStream) -> int:
    """Send and delete every spool under `root` that no live process owns; return the number of records.

    The count of decisions of each dead process goes to the stream too.

    Raises:
        OSError: a spool cannot be read; the others were sent nevertheless.
    """
    sent = 0
    failed: OSError | None = None
    for folder in await asyncio.to_thread(spool_folders, root):
        try:
            sent += await send_leftover(folder, stream)
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed
    return sent


async def send_leftover(folder: Path, stream: DecisionStream) -> int:
    """Send and delete one spool unless its owner lives; return the number of records. May raise OSError."""
    spool = Spool(folder, max_bytes=0)
    try:
        await asyncio.to_thread(spool.open)
    except StoreError:
        return 0  # its owner lives
    sent = 0
    try:
        while count := await send_next(spool, stream):
            sent += count
        # Last, because the folder goes once this is in the stream.
        if (status := read_status(folder, is_alive=False, at=time.time())) is not None:
            await stream.send([status.model_dump_json().encode()], STATUS_FIELD)
    finally:
        await asyncio.to_thread(spool.close)
    return sent
