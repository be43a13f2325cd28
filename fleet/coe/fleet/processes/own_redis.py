"""The Redis of a data folder where REDIS_URL names none: a server that an installed plugin runs.

Such a plugin is a module in the entry-point group `coe.redis`, with what `RedisPlugin` says.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from coe.base.errors import EngineError
from coe.router.plugins import installed_modules


class RedisServer(Protocol):
    """A server over one folder that lives as long as this process."""

    async def start(self) -> str:
        """Starts it and gives its URL. Raises EngineError: it does not start, or another process uses the folder."""
        ...

    async def stop(self) -> None: ...


class RedisPlugin(Protocol):
    """The names of the module."""

    def RedisServer(self, folder: Path) -> RedisServer: ...

    def running_url(self, folder: Path) -> str | None:
        """The URL of the server that another live process runs over a folder; None when there is none."""
        ...


def redis_plugin() -> RedisPlugin:
    """Raises EngineError where none is installed."""
    for module in installed_modules("redis").values():
        return cast(RedisPlugin, importlib.import_module(module))
    raise EngineError(
        "REDIS_URL is not set: name a Redis or Valkey (docs/deploy.md), or install coe-offline, which runs one "
        "(pip install examples/offline in the project's folder)"
    )


def running_url(folder: Path) -> str | None:
    """The URL of the server that another live process runs over a folder; None also where no plugin is installed."""
    return redis_plugin().running_url(folder) if installed_modules("redis") else None
