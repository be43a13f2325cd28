"""What of a request an expert takes, as its refusals say: a client that is routed does not know whom it asks, and
providers refuse each other's fields."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from fleet.backend import BackendRequest, BackendResponse, ChatBackend
from fleet.wires.builtin import chunks_of
from gateway.answer_reader import MAX_ERROR_BYTES, read_all
from gateway.body_fields import listed

REFUSALS = (400, 422)

OPTIONAL = listed(
    "metadata prompt_cache_key prompt_cache_retention safety_identifier service_tier store stream_options user "
    "temperature top_p frequency_penalty presence_penalty"
)
"""Fields that change nothing of what is said, and those of the choice of the next token. Groq and Mistral refuse hints
that they do not know, OpenAI takes `metadata` only of answers that it stores, and its reasoning models choose tokens in
one way only, so that every request of a client that sets `temperature` would end there."""

LIMIT_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""Names of the longest answer, with the other one. OpenAI's reasoning models refuse the first, Mistral the second."""

NAMES = re.compile(rb"\b(?:" + "|".join((*OPTIONAL, *LIMIT_NAMES)).encode() + rb")\b")
NOT_TAKEN = re.compile(rb"(?:un|not )support|forbidden|not permitted|unknown|unrecognized|only allowed", re.I)


class TakenFields:
    """Sends requests without the fields that experts were found to refuse."""

    def __init__(self) -> None:
        self._refused: dict[str, frozenset[str]] = {}  # by expert

    async def send(self, expert: str, backend: ChatBackend, request: BackendRequest) -> BackendResponse:
        """As the backend's `send`, and again without the fields that a refusal names. What helped is remembered."""
        refused = self._refused.get(expert, frozenset[str]())
        while True:
            sent = without(request, refused)
            response = await backend.send(sent)
            if response.status not in REFUSALS:
                if response.status < 300:
                    self._refused[expert] = refused
                return response
            try:
                refusal = await read_all(response.chunks, MAX_ERROR_BYTES)
            finally:
                await response.chunks.aclose()
            named = {name.decode() for name in NAMES.findall(refusal)} & sent.body.keys() - refused
            if not named or NOT_TAKEN.search(refusal) is None:
                response.chunks = chunks_of([refusal])
                return response
            refused |= named


def without(request: BackendRequest, refused: Collection[str]) -> BackendRequest:
    """The request without those fields; its longest answer gets its other name."""
    if not refused:
        return request
    body = {name: value for name, value in request.body.items() if name not in refused}
    for name in LIMIT_NAMES:
        if name in refused and name in request.body:
            body.setdefault(LIMIT_NAMES[name], request.body[name])
    return replace(request, body=body)
