"""Requests that the gateway makes to itself: answered like those of clients, for a caller who needs no key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from coe.base.json_text import from_json, to_json
from coe.gateway.http.asgi import Message, Receive, Scope, Send, replay
from coe.gateway.http_errors import ApiError, ClientGoneError
from coe.gateway.keys.grants import Caller

MAX_ANSWER_VALUES = 1_000_000

Inner = Callable[[Scope, Receive, Send, Caller], Awaitable[None]]
"""The gateway as it is asked from within, in the name of a caller."""


@dataclass
class Answer:
    """An answer as it comes; `status` is 0 before its head."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def take(self, message: Message) -> None:
        """The `send` of the request."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    @property
    def json(self) -> Any:
        return from_json(self.body, max_values=MAX_ANSWER_VALUES)


def inner_scope(scope: Scope, method: str, path: str, body: bytes, query: bytes = b"") -> Scope:
    """The scope of a request within that of another, whose client it has."""
    return {
        **scope,
        "method": method,
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query,
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
    }


@dataclass(frozen=True)
class Api:
    """The API as the console uses it: asks for `caller` within the request of `scope`, and ends with it."""

    gateway: Inner
    scope: Scope
    receive: Receive
    caller: Caller

    async def get(self, path: str, **query: object) -> Any:
        """The JSON of an answer; parameters that are None or '' are left out. Raises ApiError, ClientGoneError."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return (await self.ask("GET", path, urlencode(given).encode())).json

    async def post(self, path: str, body: Mapping[str, object] | None = None) -> Answer:
        """Raises as `get` does."""
        return await self.ask("POST", path, b"", b"" if body is None else to_json(body))

    async def ask(self, method: str, path: str, query: bytes, body: bytes = b"") -> Answer:
        answer = Answer()
        scope = inner_scope(self.scope, method, path, body, query)
        await self.gateway(scope, replay(body, self.receive), answer.take, self.caller)
        if not answer.status:
            raise ClientGoneError
        if answer.status >= 400:
            raise ApiError(answer.json["error"]["message"], status=answer.status)
        return answer
