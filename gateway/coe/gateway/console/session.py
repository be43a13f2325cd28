"""Session of the console: a signed cookie that names a key by its hash, or the caller of a token, until it expires. It
holds no secret, and the gateway keeps no state."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace

from starlette.requests import cookie_parser

from coe.gateway.auth import BEARER, Auth
from coe.gateway.keys.grants import EVERYBODY, Caller

COOKIE = "coe_console"
LIFE_S = 12 * 3600
KEY, TOKEN, ADMIN_TOKEN = "key", "token", "admin"


class Sessions:
    """Makes and reads the cookies: `kind.name.until.signature`, where the name is a key's hash or a token's caller, in
    hex digits. A key that is revoked or expires ends its sessions, and so does a token's team.

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
        kind, name, until = content.split(".")
        if time.time() >= int(until):
            return None
        if kind == KEY:
            return self._auth.holder(bytes.fromhex(name))
        found = self._auth.known(bytes.fromhex(name).decode())
        return None if found is None else replace(found, is_admin=kind == ADMIN_TOKEN)

    async def begin(self, secret: str) -> str | None:
        """A cookie's value for a key or token; None for one that is not known. Raises ApiError for an invalid token."""
        digest, until_s = hashlib.sha256(secret.encode()).digest(), time.time() + LIFE_S
        if self._auth.holder(digest) is not None:
            return self._cookie(KEY, digest, until_s)
        found = await self._auth.token_session(secret)
        if found is None:
            return None
        caller, ends_s = found
        return self._cookie(
            ADMIN_TOKEN if caller.is_admin else TOKEN, str(caller.key_id).encode(), min(until_s, ends_s)
        )

    def _cookie(self, kind: str, name: bytes, until_s: float) -> str:
        content = f"{kind}.{name.hex()}.{int(until_s)}"
        return f"{content}.{self._sign(content)}"

    def _sign(self, content: str) -> str:
        """A keyed hash that the log cannot have: it shows those of texts of clients, and no text begins with 0xFF."""
        return hmac.digest(self._key, b"\xffconsole " + content.encode(), "sha256").hex()
