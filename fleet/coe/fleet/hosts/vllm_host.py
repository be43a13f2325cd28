"""Runs the vLLM engines of this host: for `coe experts up`, and for a `coe up` that finds none running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from coe.base.errors import DataError
from coe.fleet.hosts.engines import Fleet
from coe.fleet.hosts.orphans import end_orphans
from coe.fleet.processes.tasks import stop_task
from coe.fleet.vllm.addresses import claim_vllm, read_vllm, renew_vllm, vllm_file, write_vllm
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine

FOLLOW_EVERY_S = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VllmHost:
    """Engines that start, or run. `starting` raises what kept one of them from it; `ended` are process ids that an
    earlier run had left."""

    fleet: Fleet
    starting: asyncio.Task[None]
    ended: tuple[int, ...]


@asynccontextmanager
async def hosted_vllm(
    config: CoeConfig, folder: Path, data_dir: Path, environment: Mapping[str, str]
) -> AsyncIterator[VllmHost]:
    """Ends what an earlier run left, starts the engines, writes their addresses for gateways, and follows the state
    that these desire; stops the engines at the end.

    Raises:
        EngineError: others run the engines of this folder.
    """
    lock = claim_vllm(data_dir)
    try:
        write_vllm(data_dir, ())
        ended = await end_orphans(data_dir)
        fleet = Fleet(config, folder, data_dir, environment, engines={Engine.VLLM})
        starting = asyncio.create_task(start_and_announce(fleet, data_dir))
        following = asyncio.create_task(follow_desired_state(fleet, data_dir, starting))
        try:
            yield VllmHost(fleet, starting, ended)
        finally:
            for task in (following, starting):
                await stop_task(task)
            vllm_file(data_dir).unlink(missing_ok=True)
            await fleet.stop()
    finally:
        lock.release()


async def start_and_announce(fleet: Fleet, data_dir: Path) -> None:
    await fleet.start()
    write_vllm(data_dir, fleet.engines)


async def follow_desired_state(fleet: Fleet, data_dir: Path, starting: asyncio.Task[None]) -> None:
    """Once the engines have started: brings them into the states that others desire, and keeps their file up to
    date."""
    await asyncio.wait({starting})
    told = fleet.engines
    while starting.exception() is None:
        now = fleet.engines
        try:
            if now != told:
                renew_vllm(data_dir, now)
                told = now
            await fleet.follow({each.name: each.desired for each in read_vllm(data_dir).engines})
        except DataError as error:
            logger.warning("%s", error)
            told = []  # so that it is written again
        await asyncio.sleep(FOLLOW_EVERY_S)
