"""`coe serve --workers N`: the parent of N processes that answer requests on one socket, and of one that keeps the log.

It holds what a data folder has once (an embedded Redis, the engines of this host, the listening socket), starts a
process again that dies, and passes signals on. It answers no request itself.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from coe.base.errors import ConfigError, EngineError
from coe.base.parent_death import coe_words
from coe.decision_log.privacy import load_key
from coe.fleet.engines import EngineAddresses
from coe.fleet.folder_lock import own_folder, remove_left
from coe.fleet.process import ProcessSpec, RestartPolicy, SupervisedProcess, all_ready, exit_words
from coe.fleet.stop_signal import Life, Stop
from coe.gateway.changes.in_force import InForce
from coe.gateway.listener import bind, url_of
from coe.gateway.services import Reporter, engines_of, experts_line, start_redis
from coe.gateway.settings import Settings
from coe.router.config import CoeConfig
from coe.router.types import Record

START_TIMEOUT_S = 600.0
FLUSH_S = 20.0
"""For the log to be written out, behind the drain and the grace of requests."""

RESTARTS = RestartPolicy(max_restarts=1_000_000, window_s=60.0, first_delay_s=0.1, max_delay_s=5.0)
"""A worker that served is always started again; the others keep running in the meantime (ours)."""

LOG = "log"
PLAN_NAME = "plan.json"
RUN_FOLDER = "run"
LONGEST_NAME = "/worker-64.sock"
MAX_SOCKET_PATH_BYTES = 100  # the system's limit is 104 to 108


class Plan(Record):
    """State that the processes of one gateway share.

    A worker that is started again gets what the others started with, whatever experts.yaml says by then, and then each
    change that was put in force since.
    """

    config: CoeConfig
    found: InForce
    workers: int = Field(ge=1)
    urls: dict[str, tuple[str, ...]] = Field(description="API roots per expert, as EngineAddresses has them")
    lora_ids: dict[str, int | None]

    @property
    def names(self) -> list[str]:
        return [worker_name(number) for number in range(self.workers)] + [LOG]

    async def engines(self) -> EngineAddresses:
        """The addresses of the engines, which run."""
        return EngineAddresses(self.urls, self.lora_ids)


def worker_name(number: int) -> str:
    return f"worker-{number + 1}"


def ready_file(folder: Path, name: str) -> Path:
    """The file that a process makes once it serves."""
    return folder / f"{name}.ready"


def check_places(config: CoeConfig, workers: int) -> None:
    """Raises ConfigError: the requests that an expert may have at once cannot be divided among so many workers."""
    for name, entry in config.experts.items():
        if entry.max_concurrency is not None and entry.max_concurrency < workers:
            raise ConfigError(
                f"experts.{name}.max_concurrency {entry.max_concurrency} cannot be divided among {workers} workers; "
                f"allowed: {workers} or more"
            )


async def run_workers(settings: Settings, config: CoeConfig, reporter: Reporter, life: Life, found: InForce) -> None:
    """Serves with several workers until a signal, and ends all in order.

    Raises:
        RouterError: something could not be started, or a process did not end as it should.
    """
    count = settings.workers
    check_count(config, count)
    listener = bind(settings.host, settings.port)
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        with reporter.step("starting Redis") as done:
            redis_url, where = await start_redis(stack, settings)
            done(f"decision log through {where}")
        with reporter.step(f"loading {len(config.experts)} experts") as done:
            fleet = await engines_of(stack, settings, config)
            addresses = await fleet.start()
            done(experts_line(settings, config, fleet))
        with reporter.step(f"starting {count} workers") as done:
            await asyncio.to_thread(load_key, settings.data_dir)  # made once, before all want it
            folder = stack.enter_context(run_folder(settings.data_dir))
            plan = Plan(config=config, found=found, workers=count, urls=addresses.urls, lora_ids=addresses.lora_ids)
            (folder / PLAN_NAME).write_text(plan.model_dump_json())
            family = make_family(settings, config, plan, folder, redis_url, listener)
            for process in (family.log, *family.workers):
                stack.push_async_callback(process.stop)
                process.start()
            try:
                await all_ready((family.log, *family.workers))
            except BaseException:
                family.hurry()  # one that serves already would drain first
                raise
            url = url_of(settings.host, listener.getsockname()[1])
            done(f"gateway at {url}, with {count} workers")
        life.is_starting = False
        await life.stop.wait()
        listener.close()  # the workers have it, and close it when they have drained
        await family.stop(life.stop)


@dataclass(frozen=True)
class Family:
    """The processes of a gateway."""

    workers: Sequence[SupervisedProcess]
    log: SupervisedProcess

    async def stop(self, stop: Stop) -> None:
        """The workers, then the log, which writes their last decisions. An urgent stop is passed on at once.

        Raises:
            EngineError: one did not end with exit status 0.
        """
        hurrying = asyncio.create_task(self._hurry(stop))
        await asyncio.gather(*(worker.stop() for worker in self.workers))
        await self.log.stop()
        hurrying.cancel()
        if bad := [each for each in (*self.workers, self.log) if each.exit_code]:
            raise EngineError("; ".join(f"{each.spec.name} ended with {exit_words(each.exit_code)}" for each in bad))

    async def _hurry(self, stop: Stop) -> None:
        await stop.urgent.wait()
        self.hurry()

    def hurry(self) -> None:
        """Has the workers end without a drain."""
        for worker in self.workers:
            worker.send(signal.SIGINT)


def make_family(
    settings: Settings, config: CoeConfig, plan: Plan, folder: Path, redis_url: str, listener: socket.socket
) -> Family:
    """The processes, not started yet."""
    environment = {
        **os.environ,
        "COE_CONFIG": str(settings.config_path),
        "COE_DATA_DIR": str(settings.data_dir),
        "COE_HOST": settings.host,
        "COE_PORT": str(listener.getsockname()[1]),
        "COE_LOG_LEVEL": settings.log_level,
        "COE_LOG_FORMAT": settings.log_format,
        "COE_LEARN_EVERY": settings.learn_every,
        "REDIS_URL": redis_url,
    }

    def process(name: str, words: Collection[str], grace_s: float, *descriptors: int) -> SupervisedProcess:
        spec = ProcessSpec(
            name,
            coe_words(*words, str(os.getpid())),
            log=None,
            ready_file=ready_file(folder, name),
            env=environment,
            start_timeout_s=START_TIMEOUT_S,
            stop_grace_s=grace_s + FLUSH_S,
            descriptors=descriptors,
        )
        return SupervisedProcess(spec, restarts=RESTARTS)

    path, limits, descriptor = str(folder / PLAN_NAME), config.gateway, listener.fileno()
    grace_s = limits.drain_s + limits.shutdown_grace_s
    workers = [
        process(worker_name(number), ("serve-worker", path, str(number), str(descriptor)), grace_s, descriptor)
        for number in range(plan.workers)
    ]
    return Family(workers, process(LOG, ("serve-log", path), 0.0))


def check_count(config: CoeConfig, count: int) -> None:
    """Raises ConfigError: limits cannot be divided by so many, or one process has to decide which engines are awake."""
    if config.residency is not None and count > 1:
        raise ConfigError(
            f"COE_WORKERS={count}: with `residency` one process decides which engines are awake; allowed: 1"
        )
    check_places(config, count)
    limits = config.gateway
    most = min(
        limits.max_concurrency, limits.max_connections, limits.max_bytes_in_flight // (8 * limits.max_body_bytes)
    )
    if count > most:
        raise ConfigError(
            f"COE_WORKERS={count} is too many to divide gateway.max_concurrency {limits.max_concurrency}, "
            f"max_connections {limits.max_connections} and max_bytes_in_flight {limits.max_bytes_in_flight} among; "
            f"allowed: 1 to {most}"
        )


@contextmanager
def run_folder(data_dir: Path) -> Iterator[Path]:
    """A new folder in the data folder, removed at the end, as are those of runs that were killed.

    Elsewhere where the data folder's name is too long for a socket.
    """
    root = data_dir.resolve() / RUN_FOLDER
    root.mkdir(exist_ok=True, mode=0o700)
    remove_left(root)
    folder = root / secrets.token_hex(4)
    if len(bytes(folder)) + len(LONGEST_NAME) > MAX_SOCKET_PATH_BYTES:
        with tempfile.TemporaryDirectory(prefix="coe-") as elsewhere:
            yield Path(elsewhere)
        return
    lock = own_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        remove_left(root)  # again: workers of a killed run may still have been writing when this one began
