"""Fields that an expert does not take, as its refusals say: a client that is routed does not know whom it asks, and
providers refuse each other's fields."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection

from coe.base.json_text import JsonError, from_json, to_json
from coe.fleet.calls.backend import MAX_ERROR_BYTES, BackendRequest, BackendResponse, ChatBackend, chunks_of, read_all

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

Kind = tuple[str, bytes, frozenset[str]]

logger = logging.getLogger(__name__)


class TakenFields:
    """Sends requests to an expert without the fields that it was found to refuse.

    `known` has them by kind of request, each until a time.
    """

    def __init__(self, expert: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._expert, self._clock = expert, clock
        self.known: dict[Kind, tuple[frozenset[str], float]] = {}

    async def send(
        self,
        backend: ChatBackend,
        request: BackendRequest,
        added: Collection[str] = (),
        response: BackendResponse | None = None,
    ) -> BackendResponse:
        """Sends a request as the backend does, and after a refusal again without the field that it names first: some go
        on to list those that are known.

        What helped is remembered for an hour, for requests of this kind (`kind_of`), unless only words said it and
        the request itself has such words. Some servers repeat what they got, and then a client could have fields of all
        others left out.

        Args:
            added: fields that are not the client's, which are left out after a refusal that names none, too.
            response: a refusal of the request, which was sent as it is.
        """
        kind, is_by_code = kind_of(request), True
        refused, until_s = self.known.get(kind, (frozenset[str](), 0.0))
        if self._clock() >= until_s:
            refused = frozenset()
        before = refused
        while True:
            sent = without(request, refused)
            response = response or await backend.send(sent)
            if response.status not in REFUSALS:
                has_helped = refused != before and response.status < 300
                if has_helped and (is_by_code or not says_not_taken(to_json(request.body))):
                    self._remember(kind, refused, refused - before)
                own = refused & request.body.keys() - LIMIT_NAMES.keys() - set(added)
                response.left_out = tuple(sorted(own))
                return response
            refusal = await closed(response)
            field, by_code = refused_in(refusal, sent)
            if field is None:
                field = next((name for name in added if name in sent.body), None)
            if field is None or field in refused:
                response.chunks = chunks_of([refusal])
                return response
            refused |= {field}
            is_by_code, response = is_by_code and by_code, None

    def _remember(self, kind: Kind, refused: frozenset[str], new: Collection[str]) -> None:
        if len(self.known) > MAX_KEPT:
            self.known.clear()
        self.known[kind] = refused, self._clock() + FORGOTTEN_AFTER_S
        logger.info("expert %s refuses %s, and is asked without for an hour", self._expert, ", ".join(sorted(new)))


async def closed(response: BackendResponse) -> bytes:
    """The body of a refusal."""
    try:
        return await read_all(response.chunks, MAX_ERROR_BYTES)
    finally:
        await response.chunks.aclose()


def kind_of(request: BackendRequest) -> Kind:
    """Requests for which a refusal holds alike: of the same path, since APIs have different fields of one name, with
    the same fields beside it, on which it may depend, and the same values of some."""
    body = request.body
    values = to_json({name: body[name] for name in SWITCHES if name in body})[:MAX_SWITCH_BYTES]
    return request.path, values, frozenset(body.keys() & {*OPTIONAL, *LIMIT_NAMES})


def refused_in(refusal: bytes, sent: BackendRequest) -> tuple[str | None, bool]:
    """The first field of a request that its refusal names as one that is not taken at all, None for other faults; and
    whether it says so by a code."""
    try:
        error = from_json(refusal, has_unique_keys=False)["error"]
        code, param = error.get("code"), str(error.get("param")).partition(".")[0]
    except (JsonError, LookupError, TypeError, AttributeError):
        code, param = None, ""
    by_code = code in CODES and bool(NAMES.fullmatch(param.encode()))
    if not (by_code or says_not_taken(refusal)):
        return None, False
    named = [name.decode() for name in NAMES.findall(refusal)]
    first = [param] if param in named else named
    field = next((name for name in first if name in sent.body and (sent.path, name) != NOT_STORED), None)
    return field, by_code


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
