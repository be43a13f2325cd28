"""Options of `coe train` and `coe retrain`, in a module that loads no router."""

from __future__ import annotations

from pydantic import Field

from coe.router.types import Record


class FitOptions(Record):
    """The options of `coe train`; a kind given here replaces the configured plugin."""

    encoder: str | None = None
    classifier: str | None = None
    scorer: str | None = Field(default=None, description="kind of scorer, instead of the configured one")
    seed: int = Field(default=0, ge=0, description="seed of every random draw")


class Terms(Record):
    """The terms of a retraining."""

    margin: float = Field(default=0.02, ge=0, le=1, description="largest loss of category accuracy that is tolerated")


DEFAULT_TERMS = Terms()
