"""The kind of answer that a probe asks for, as its grader tells: by it answers of different experts are compared."""

from __future__ import annotations

from typing import Final, cast

from eval.probe_set import GraderSpec
from router import plugins
from router.strategies.kind_of import FAMILY
from router.strategies.types import AnswerKind

KIND_OF: Final = {"numeric": "number", "label": "label", "json_fields": "json", "exact": "text"}
"""Kind of answers by kind of grader. What the others look for (code, SQL, words anywhere in a text) is not compared."""


def answer_kind_of(grader: GraderSpec) -> AnswerKind | None:
    """None where answers cannot be compared."""
    kind = KIND_OF.get(grader.kind)
    if kind is None:
        return None
    options = {"labels": grader.__pydantic_extra__["labels"]} if kind == "label" else {}
    return cast(AnswerKind, plugins.build(FAMILY, kind, options))
