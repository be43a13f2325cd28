"""Fields that an expert does not take, as its refusals say: a client that is routed does not know whom it asks, and
providers refuse each other's fields."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import replace

from base.json_text import to_json
from fleet.backend import MAX_ERROR_BYTES, BackendRequest, BackendResponse, ChatBackend, read_all
from fleet.wires.builtin import chunks_of

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

logger = logging.getLogger(__name__)


class TakenFields:
    """Sends requests to an expert without the fields that it was found to refuse."""

    def __init__(self, expert: str, backend: ChatBackend) -> None:
        self._expert, self._backend = expert, backend
        self._refused: dict[str, frozenset[str]] = {}  # by path: wires have different fields of one name

    async def send(self, request: BackendRequest, added: Collection[str] = ()) -> BackendResponse:
        """Sends a request as the backend does, and after a refusal again without the field that it names first: some go
        on to list those that are known.

        What helped is remembered, unless the request itself has words of a refusal. Some servers repeat what they got,
        and then a client could have fields of all others left out.

        Args:
            added: fields that are not the client's, which are left out after a refusal that names none, too.
        """
        known = refused = self._refused.get(request.path, frozenset())
        while True:
            sent = without(request, refused)
            response = await self._backend.send(sent)
            if response.status not in REFUSALS:
                if refused != known and response.status < 300 and not says_not_taken(to_json(request.body)):
                    self._refused[request.path] = self._refused.get(request.path, known) | refused
                    names = ", ".join(sorted(refused - known))
                    logger.info("expert %s refuses %s, and is asked without from now on", self._expert, names)
                if refused:
                    own = refused & request.body.keys() - LIMIT_NAMES.keys() - set(added)
                    response.left_out = tuple(sorted(own))
                return response
            try:
                refusal = await read_all(response.chunks, MAX_ERROR_BYTES)
            finally:
                await response.chunks.aclose()
            field = refused_field(refusal, sent)
            field = next((name for name in added if name in sent.body), None) if field is None else field
            if field is None or field in refused:
                response.chunks = chunks_of([refusal])
                return response
            refused |= {field}


def refused_field(refusal: bytes, sent: BackendRequest) -> str | None:
    """The first field of a request that its refusal names as one that is not taken at all; None for other faults."""
    if not says_not_taken(refusal):
        return None
    named = (name.decode() for name in NAMES.findall(refusal))
    return next((name for name in named if name in sent.body and (sent.path, name) != NOT_STORED), None)


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
    return replace(request, body=body)
