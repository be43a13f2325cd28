"""State that the processes of `coe serve --workers N` share, and their names."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from base.errors import ConfigError
from fleet.engines import EngineAddresses
from gateway.changes.history import InForce
from router.config import CoeConfig
from router.retrieval_config import IndexKind
from router.types import Record

LOG = "log"
PLAN_NAME = "plan.json"


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


def has_local_index(config: CoeConfig) -> bool:
    """Returns True where vector stores belong to one process (docs/decisions/28-one-index-process.md)."""
    return config.retrieval is not None and config.retrieval.stores.index is IndexKind.LOCAL


def check_places(config: CoeConfig, workers: int) -> None:
    """Raises ConfigError: the requests that an expert may have at once cannot be divided among so many workers."""
    for name, entry in config.experts.items():
        if entry.max_concurrency is not None and entry.max_concurrency < workers:
            raise ConfigError(
                f"experts.{name}.max_concurrency {entry.max_concurrency} cannot be divided among {workers} workers; "
                f"allowed: {workers} or more"
            )
