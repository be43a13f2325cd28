"""Who is looking: a cookie that names a key by its hash, for a while, signed. No secret is in it, and no state here."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from gateway.auth import Auth
from gateway.keys.grants import EVERYBODY, Caller

COOKIE = "coe_console"
LIFE_S = 12 * 3600


class Sessions:
    """Makes and reads the cookies. A key that is revoked or expires ends its sessions.

    Args:
        key: what cookies are signed with, the same in all gateways of a data folder; empty: one of this process.
    """

    def __init__(self, auth: Auth, key: bytes) -> None:
        self._auth, self._key = auth, key or secrets.token_bytes(32)

    def caller(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        """The caller of a request; everybody on a gateway without keys, None where nobody has logged in."""
        if not self._auth.needs_key:
            return EVERYBODY
        digest, _, rest = cookie_of(headers).partition(".")
        until, _, signature = rest.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(digest, until).encode()):
            return None
        return self._auth.holder(bytes.fromhex(digest)) if time.time() < int(until) else None

    def begin(self, secret: str) -> str | None:
        """A cookie's value for a key; None for one that is not known."""
        digest = hashlib.sha256(secret.encode()).digest()
        if self._auth.holder(digest) is None:
            return None
        until = str(int(time.time()) + LIFE_S)
        return f"{digest.hex()}.{until}.{self._sign(digest.hex(), until)}"

    def _sign(self, digest: str, until: str) -> str:
        return hmac.digest(self._key, f"console {digest} {until}".encode(), "sha256").hex()


def cookie_of(headers: Mapping[bytes, bytes]) -> str:
    try:
        found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
