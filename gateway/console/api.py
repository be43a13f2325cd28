"""The gateway's API as the console uses it: asked in this process, with the rights of one caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from base.json_text import from_json, to_json
from gateway.asgi import Application, Message, Receive, Scope, Send
from gateway.http_errors import ClientGoneError
from gateway.keys.grants import Caller
from gateway.rest import replay

MAX_ANSWER_VALUES = 1_000_000


class ApiFailure(Exception):
    """The API refused; its words are for the person who asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Reply:
    """An answer that is no error."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return from_json(self.body, max_values=MAX_ANSWER_VALUES)


@dataclass(frozen=True)
class Api:
    """Asks for `caller` within the request of `scope`, and ends with it."""

    gateway: Application
    scope: Scope
    receive: Receive
    caller: Caller

    async def get(self, path: str, **query: object) -> Any:
        """The JSON of an answer; parameters that are None or '' are left out. Raises ApiFailure, ClientGoneError."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return (await self.ask("GET", path, urlencode(given).encode())).json

    async def post(self, path: str, body: Mapping[str, object] | None = None) -> Reply:
        """Raises as `get` does."""
        return await self.ask("POST", path, b"", b"" if body is None else to_json(body))

    async def ask(self, method: str, path: str, query: bytes, body: bytes = b"") -> Reply:
        sent: list[Message] = []

        async def keep(message: Message) -> None:
            sent.append(message)

        await self._send(method, path, query, body, keep)
        if not sent:
            raise ClientGoneError
        head, status = dict(sent[0]["headers"]), sent[0]["status"]
        content = b"".join(message.get("body", b"") for message in sent[1:])
        if status >= 400:
            raise ApiFailure(status, from_json(content)["error"]["message"])
        return Reply({name.decode("latin-1"): value.decode("latin-1") for name, value in head.items()}, content)

    async def pass_on(self, path: str, query: Mapping[str, object], send: Send) -> None:
        """Has the API answer by `send`, whatever it says."""
        await self._send("GET", path, urlencode(query).encode(), b"", send)

    async def _send(self, method: str, path: str, query: bytes, body: bytes, send: Send) -> None:
        scope = {
            **self.scope,
            "method": method,
            "path": path,
            "raw_path": quote(path).encode(),
            "query_string": query,
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
            "coe_caller": self.caller,
        }
        await self.gateway(scope, replay(body, self.receive), send)
