"""Bodies of the gateway's own endpoints, as they cross HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from router.types import DecisionRecord, FeedbackKind, Record, RoutingDecision


class FeedbackRequest(Record):
    """What a client says about an answer."""

    decision_id: str = Field(min_length=1, max_length=64, description="from the header x-coe-decision-id")
    kind: FeedbackKind
    value: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class FeedbackAnswer(Record):
    """`status` is `replaced` when the same key had said something of that kind before."""

    decision_id: str
    status: Literal["accepted", "replaced"]


class RouteAnswer(Record):
    """A decision that was not carried out, and the reason in words."""

    decision: RoutingDecision
    why: str


class ModelCard(Record):
    """One name that `model` may have. `owned_by` says what kind it is: `coe`, `coe-policy` or the engine."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class ModelList(Record):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]


class Health(Record):
    """`missing` says what keeps the gateway from serving."""

    status: Literal["ok", "not_ready"]
    missing: tuple[str, ...] = ()
    router_version: str | None = None
    experts_alive: tuple[str, ...] = ()


class Receipt(Record):
    """What became of one request."""

    record: DecisionRecord
    why: str
