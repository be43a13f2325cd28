"""Feedback from people, implicit signals from clients, and judgements of answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from coe.router.types import Record


class FeedbackKind(StrEnum):
    """Kind of a piece of feedback."""

    THUMB = "thumb"  # value 0 or 1
    SCORE = "score"  # value in [0, 1]
    EDIT = "edit"  # share of the answer that was kept, in [0, 1]
    RETRY = "retry"  # value 0: the user asked again
    TEST = "test"  # task outcome: 1 passed, 0 failed
    TICKET = "ticket"  # task outcome: 1 stayed closed, 0 reopened


class DocumentFeedback(Record):
    """Feedback on one document that a retrieval decision showed: 1 opened or cited, 0 rejected."""

    decision_id: str = Field(min_length=1, max_length=64)
    document_id: str = Field(min_length=1, max_length=128)
    value: Annotated[float, Field(ge=0, le=1)]
    at: float = Field(description="Unix seconds")
    key_id: str | None = None


class ImplicitKind(StrEnum):
    """A client's action that may say something about an answer. It is stored apart from explicit feedback."""

    REASKED = "reasked"  # the same ask came again in the same session within ten minutes
    ABORTED = "aborted"  # the client left after the answer had begun and before its end
    CUT_OFF = "cut_off"  # the expert stopped at its limit of tokens (finish_reason "length")


class Feedback(Record):
    """A verdict of a person or a test on the answer of one decision."""

    decision_id: str = Field(min_length=1, max_length=64)
    kind: FeedbackKind
    value: Annotated[float, Field(ge=0, le=1)]
    at: float = Field(description="Unix seconds")
    key_id: str | None = None


class FeedbackStatus(StrEnum):
    """The fate of a piece of feedback."""

    ACCEPTED = "accepted"
    REPLACED = "replaced"  # the same key had said something else of that kind
    REPEATED = "repeated"  # or just the same
    OVER_HOUR = "over_hour"  # refused: that key has said enough for an hour
    ERASED = "erased"  # refused: the decision is gone


class JudgedAnswer(Record):
    """A judge's verdict on the answer of `expert` to one request.

    `value` is a grade in [0, 1]. With `other`, it says how far the answer is preferred to that of `other` (1, 0, or 0.5
    for a tie). `rubric` is a hash; `is_consistent` says whether both orders agreed.
    """

    decision_id: str
    judge: str
    rubric: str
    expert: str
    other: str = ""
    value: float = Field(ge=0, le=1)
    is_consistent: bool | None = None
    at: float = Field(description="Unix seconds")
