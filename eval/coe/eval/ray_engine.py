"""Work distributed by Ray: on this machine, or on RAY_ADDRESS's cluster, whose nodes have `coe` installed."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any, TypeVar

import typer

from coe.base.extras import require_installed


class WorkEngine(StrEnum):
    """The place of a command's work."""

    LOCAL = "local"
    RAY = "ray"


EngineOption = Annotated[
    WorkEngine, typer.Option("--engine", help="local: this process; ray: Ray's processes, on RAY_ADDRESS if it is set")
]

Part = TypeVar("Part")
Result = TypeVar("Result")

PARTS_PER_CORE = 2
"""Number of parts in progress for each core, so that no core waits for the next part."""


@contextmanager
def cores_of(engine: WorkEngine) -> Iterator[int]:
    """Connect to Ray and yield its cores, or 0 if this process works; raise MissingExtraError if Ray is not
    installed."""
    if engine is WorkEngine.LOCAL:
        yield 0
        return
    require_installed("--engine ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no call home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what it warns that it will do one day
    ray: Any = import_module("ray")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        ray.shutdown()


def spread(function: Callable[[Part], Result], parts: Iterable[Part], cores: int) -> Iterator[Result]:
    """Run the function on each part in a process of Ray's; yield results in order. Its own errors are raised."""
    ray: Any = import_module("ray")
    remote = ray.remote(max_retries=3)(function)
    running: deque[Any] = deque()
    for part in parts:
        running.append(remote.remote(part))
        if len(running) >= PARTS_PER_CORE * cores:
            yield result_of(running.popleft())
    while running:
        yield result_of(running.popleft())


def result_of(reference: Any) -> Any:
    """Return a part's result, or raise its own exception instead of Ray's."""
    ray: Any = import_module("ray")
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
