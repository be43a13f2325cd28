"""The options of `coe eval routing`, in a module that loads no router, so that `--help` stays fast."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from coe.router.config.policy import Budgets
from coe.router.types import Record

DEFAULT_ENCODER = "use_multilingual+hashing"


class RoutingOptions(Record):
    """The options that need no parsing."""

    method: str = Field(default="map", description="kind of scorer that is reported as coe")
    encoder: str = Field(default=DEFAULT_ENCODER, description="kind of encoder, or several joined by +")
    classifier: str = Field(default="logistic", description="kind of classifier")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="seed of every random draw")
    folds: int = Field(
        default=0, ge=0, description="also decide all prompts in so many parts, each by a router fitted on the others"
    )


class RoutingRequest(RoutingOptions):
    """A run that fits on the splits `train` and `valid` of `outcomes` and reports on its split `test`. All choices
    are made by cross-validation on the fit rows. `cache` stores embeddings by content."""

    outcomes: Path
    out: Path
    command: str
    experts: tuple[str, ...] | None = None
    budgets: Budgets = Budgets()
    cache: Path | None = None
