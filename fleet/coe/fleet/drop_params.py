"""Fields that an expert does not take, as its refusals say: a client that is routed does not know whom it asks, and
providers refuse each other's fields."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from coe.base.json_text import JsonError, from_json, to_json
from coe.fleet.backend import MAX_ERROR_BYTES, BackendRequest, BackendResponse, ChatBackend, read_all
from coe.fleet.chat_completions import chunks_of

REFUSALS = (400, 422)

OPTIONAL = (
    *("metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store"),
    *("stream_options", "user", "temperature", "top_p", "frequency_penalty", "presence_penalty"),
)
"""Fields that change nothing of what is said, and those of the choice of the next token. Groq and Mistral refuse hints
that they do not know, OpenAI takes `metadata` only of answers that it stores, and its reasoning models choose tokens in
one way only, so that every request of a client that sets `temperature` would end there."""

LIMIT_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""Names of the longest answer, with the other one. OpenAI's reasoning models refuse the first, Mistral the second."""

NOT_STORED = ("responses", "store")
"""A path and the field that never is left out there: without it OpenAI stores the answer."""

NAMES = re.compile(rb"\b(?:" + "|".join((*OPTIONAL, *LIMIT_NAMES)).encode() + rb")\b")
NOT_TAKEN = (b"unsupport", b"not support", b"forbidden", b"not permitted", b"unknown", b"unrecognized", b"only allowed")
CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
"""Codes by which OpenAI says the same of the field in `param`."""

SWITCHES = ("store", "reasoning_effort", "reasoning", "thinking", "service_tier", "prompt_cache_retention")
"""Fields on whose values it depends whether they or others are taken: some models take `temperature` unless they
reason, and some tiers and times. So one client's wrong tier leaves those of others in."""

FORGOTTEN_AFTER_S = 3600.0
"""The model behind an address may be another one by then."""

MAX_KEPT, MAX_SWITCH_BYTES = 200, 200
"""Of what is known, and of the values that tell requests apart: those are a client's."""

Kind = tuple[object, ...]

logger = logging.getLogger(__name__)


class Refused(NamedTuple):
    """A field that a refusal names: by a code that says so, and beside others, on which it may depend."""

    field: str
    by_code: bool = False
    is_beside: bool = False


class TakenFields:
    """Sends requests to an expert without the fields that it was found to refuse."""

    def __init__(self, expert: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._expert, self._clock = expert, clock
        self._refused: dict[tuple[str, Kind], float] = {}  # a field, of what requests, and until when

    async def send(self, backend: ChatBackend, request: BackendRequest, added: Collection[str] = ()) -> BackendResponse:
        """Sends a request as the backend does, and after a refusal again without the field that it names first: some go
        on to list those that are known.

        What helped is remembered for an hour, for requests like this one (`kinds_of`), unless only words said it and
        the request itself has such words. Some servers repeat what they got, and then a client could have fields of all
        others left out.

        Args:
            added: fields that are not the client's, which are left out after a refusal that names none, too.
        """
        refused = self._known(request) if self._refused else frozenset[str]()
        new: list[Refused] = []
        while True:
            sent = without(request, refused)
            response = await backend.send(sent)
            if response.status not in REFUSALS:
                if new and response.status < 300:
                    self._remember(request, new)
                if refused:
                    own = refused & request.body.keys() - LIMIT_NAMES.keys() - set(added)
                    response.left_out = tuple(sorted(own))
                return response
            try:
                refusal = await read_all(response.chunks, MAX_ERROR_BYTES)
            finally:
                await response.chunks.aclose()
            ours = (Refused(name) for name in added if name in sent.body)
            found = refused_in(refusal, sent) or next(ours, None)
            if found is None or found.field in refused:
                response.chunks = chunks_of([refusal])
                return response
            refused |= {found.field}
            new.append(found)

    def _known(self, request: BackendRequest) -> frozenset[str]:
        kinds, now_s = kinds_of(request), self._clock()
        return frozenset(field for (field, kind), ends_s in self._refused.items() if kind in kinds and now_s < ends_s)

    def _remember(self, request: BackendRequest, new: Sequence[Refused]) -> None:
        if says_not_taken(to_json(request.body)) and not all(each.by_code for each in new):
            return
        if len(self._refused) > MAX_KEPT:
            self._refused.clear()
        kinds, ends_s = kinds_of(request), self._clock() + FORGOTTEN_AFTER_S
        self._refused |= {(each.field, kinds[each.is_beside]): ends_s for each in new}
        names = ", ".join(sorted(each.field for each in new))
        logger.info("expert %s refuses %s, and is asked without for an hour", self._expert, names)


def kinds_of(request: BackendRequest) -> tuple[Kind, Kind]:
    """The two kinds of request that a refusal may hold for: of the same path, since wires have different fields of one
    name, and the same values of some fields; and those that have the same fields beside it, too."""
    body = request.body
    usual = request.path, to_json({name: body[name] for name in SWITCHES if name in body})[:MAX_SWITCH_BYTES]
    return usual, (*usual, frozenset(body.keys() & {*OPTIONAL, *LIMIT_NAMES}))


def refused_in(refusal: bytes, sent: BackendRequest) -> Refused | None:
    """The first field of a request that its refusal names as one that is not taken at all; None for other faults."""
    try:
        error = from_json(refusal, has_unique_keys=False)["error"]
        code, param = error.get("code"), str(error.get("param")).partition(".")[0]
    except (JsonError, LookupError, TypeError, AttributeError):
        code, param = None, ""
    by_code = code in CODES and bool(NAMES.fullmatch(param.encode()))
    if not (by_code or says_not_taken(refusal)):
        return None
    named = [name.decode() for name in NAMES.findall(refusal)]
    first = [param] if param in named else named
    field = next((name for name in first if name in sent.body and (sent.path, name) != NOT_STORED), None)
    return None if field is None else Refused(field, by_code, bool({*named} - {field, LIMIT_NAMES.get(field)}))


def says_not_taken(text: bytes) -> bool:
    lower = text.lower()
    return any(words in lower for words in NOT_TAKEN)


def without(request: BackendRequest, refused: Collection[str]) -> BackendRequest:
    """The request without those fields; its longest answer gets its other name."""
    if not refused:
        return request
    body = {name: value for name, value in request.body.items() if name not in refused}
    for name in LIMIT_NAMES:
        if name in refused and name in request.body:
            body.setdefault(LIMIT_NAMES[name], request.body[name])
    return request._replace(body=body)
