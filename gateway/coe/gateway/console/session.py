"""Session of the console: a signed cookie that names a key by its hash. It holds no secret, and the gateway keeps no
state."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping

from starlette.requests import cookie_parser

from coe.gateway.http.auth import BEARER, Auth
from coe.gateway.keys.grants import EVERYBODY, Caller

COOKIE = "coe_console"
LIFE_S = 12 * 3600


class Sessions:
    """Makes and reads the cookies: `hash.until.signature`. A key that is revoked or expires ends its sessions.

    Args:
        key: what cookies are signed with, the same in all gateways of a data folder; empty: one of this process.
    """

    def __init__(self, auth: Auth, key: bytes) -> None:
        self._auth, self._key = auth, key or secrets.token_bytes(32)

    async def caller(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        """The caller of a request; everybody on a gateway without keys, None where nobody has logged in.

        Raises:
            ApiError: as `Auth.caller`, of a key or token in the header, where a proxy that logs people in sends one.
        """
        if not self._auth.needs_key:
            return EVERYBODY
        if headers.get(b"authorization", b"").lower().startswith(BEARER):
            return await self._auth.caller(headers)
        cookies = cookie_parser(headers.get(b"cookie", b"").decode("latin-1"))
        content, _, signature = cookies.get(COOKIE, "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(content).encode()):
            return None
        digest, until = content.split(".")
        return None if time.time() >= int(until) else self._auth.holder(bytes.fromhex(digest))

    def begin(self, secret: str) -> str | None:
        """A cookie's value for a key; None for one that is not known."""
        digest = hashlib.sha256(secret.encode()).digest()
        if self._auth.holder(digest) is None:
            return None
        content = f"{digest.hex()}.{int(time.time()) + LIFE_S}"
        return f"{content}.{self._sign(content)}"

    def _sign(self, content: str) -> str:
        """A keyed hash that the log cannot have: it shows those of texts of clients, and no text begins with 0xFF."""
        return hmac.digest(self._key, b"\xffconsole " + content.encode(), "sha256").hex()
