"""The options of `coe experts train-lora`, in a module that loads no router."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from coe.cli.options import GATEWAY_URL
from coe.router.types import Record
from coe.training.lora.adapter_fit import Recipe

MAX_TOKENS = 1024
"""Largest number of tokens in an example with its prompt."""

RANK = 4
"""Rank of an adapter."""

MAX_QUERIES = 2000
"""Largest number of logged queries that a teacher answers, the newest first."""


class AdapterOptions(Record):
    """The options of an adapter, and of the expert that it becomes."""

    answers: str | None = Field(default=None, description="kind of answers; default: experts.yaml's, or text")
    max_tokens: int = Field(default=128, ge=1, le=2048, description="longest answer")
    out: Path | None = Field(default=None, description="folder of the adapter; default: <data>/lora/NAME")
    no_add: bool = Field(default=False, description="train and measure only")
    probes_from: Path | None = Field(
        default=None, description="folder or file of probes for the map; default: the shipped probes"
    )
    promote: bool = Field(default=False, description="make the router with it on the map live at once")
    base_url: str = Field(default=GATEWAY_URL, description="API root of the running gateway")


class TrainOptions(Record):
    """The options of the examples to learn, and of the length of training."""

    data: Path | None = Field(
        default=None, description="JSON lines with `text` and `answer`; default: queries of the log, see --teacher"
    )
    teacher: str | None = Field(default=None, description="expert that answers the queries of the log")
    on: str | None = Field(default=None, description="expert whose weights it extends; default: the only one")
    steps: int = Field(default=100, ge=1, description="of 16 examples each")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="seed of every random draw")

    @property
    def recipe(self) -> Recipe:
        """The recipe of the shipped experts, with another length, rank and token limit."""
        warm_up = min(Recipe().warmup_steps, self.steps // 5)
        size = {"rank": RANK, "alpha": 2 * RANK, "max_tokens": MAX_TOKENS}
        return Recipe(self.seed, self.steps, warmup_steps=warm_up, **size)
