"""Ids of answers. Where the gateway writes an answer, or an engine names it after the request, its id holds that of its
decision: a client may name the decision by either, and nothing has to be stored."""

from __future__ import annotations

import re

ANSWER = re.compile(r"(?:chatcmpl-|cmpl-|msg_|resp_)(?:dec-)?([0-9a-f]{20,60})")


def answer_id(prefix: str, decision_id: str) -> str:
    """The id of an answer on a surface whose ids begin with `prefix`."""
    return prefix + decision_id.removeprefix("dec-")


def decision_named(name: str) -> str:
    """The decision of an answer's id; what is none of ours stays as it is."""
    found = ANSWER.fullmatch(name)
    return name if found is None else f"dec-{found[1]}"
