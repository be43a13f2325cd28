"""The gateway's API as the console uses it: asked in this process, with the rights of one caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from coe.base.json_text import to_json
from coe.gateway.asgi import Receive, Scope, Send, replay
from coe.gateway.http_errors import ApiError, ClientGoneError
from coe.gateway.inner_request import Answer, Inner, inner_scope
from coe.gateway.keys.grants import Caller


@dataclass(frozen=True)
class Api:
    """Asks for `caller` within the request of `scope`, and ends with it."""

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
        await self._send(method, path, query, body, answer.take)
        if not answer.status:
            raise ClientGoneError
        if answer.status >= 400:
            raise ApiError(answer.json["error"]["message"], status=answer.status)
        return answer

    async def _send(self, method: str, path: str, query: bytes, body: bytes, send: Send) -> None:
        scope = inner_scope(self.scope, method, path, body, query)
        await self.gateway(scope, replay(body, self.receive), send, self.caller)
