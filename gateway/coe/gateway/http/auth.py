"""Checks of who asks. Web pages are kept away: a browser sends their requests to any address, also to those that only
its machine reaches. Callers come with keys of `coe keys`, keys of COE_API_KEYS, tokens, or nothing; keys are known by
their hash."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence

from coe.gateway.http.asgi import Application
from coe.gateway.http.listener import is_loopback
from coe.gateway.http_errors import ApiError, no_key
from coe.gateway.keys.grants import EVERYBODY, Caller
from coe.gateway.keys.key_ring import KeyRing
from coe.gateway.keys.oidc import Oidc, is_token

BEARER = b"bearer "
AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
DEFAULT_PORTS = {"http": "80", "https": "443"}
MAX_SHOWN_CHARS = 100


class Auth:
    """The clients that may call `/v1/*`. Without keys everybody may, which only a loopback address allows.

    Args:
        keys: the secrets of COE_API_KEYS; only their hashes are kept. They are the operator's: without limits.
        ring: the keys of SQL.
        oidc: takes the tokens of an identity provider.
    """

    def __init__(self, keys: Iterable[str] = (), ring: KeyRing | None = None, oidc: Oidc | None = None) -> None:
        digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        # A name is the whole hash, because it owns files, stores and decisions: keys that share a part can be found.
        self._fixed = tuple((digest, Caller(f"key-{digest.hex()}")) for digest in digests)
        self.ring, self._oidc = ring or KeyRing(), oidc

    @property
    def needs_key(self) -> bool:
        return bool(self._fixed) or self.ring.has_keys or self._oidc is not None

    def known(self, key_id: str | None) -> Caller | None:
        """The caller of that id as it is now; None once its key has ended."""
        if key_id is None:
            return None if self.needs_key else EVERYBODY
        fixed = next((caller for _, caller in self._fixed if caller.key_id == key_id), None)
        found = fixed or self.ring.known(key_id)
        return self._oidc.known(key_id) if found is None and self._oidc is not None else found

    async def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """The caller by its key or token; everybody while no key was ever made.

        Raises:
            ApiError: 401, the key is missing, unknown, revoked or expired; of a token as `Oidc.caller` says.
        """
        if not self.needs_key:
            return EVERYBODY
        given = headers.get(b"authorization")
        if given is None and b"x-api-key" in headers:  # Anthropic's clients
            given = BEARER + headers[b"x-api-key"]
        if given is None or given[: len(BEARER)].lower() != BEARER:
            raise no_key("a key is needed: send the header 'Authorization: Bearer KEY'")
        secret = given[len(BEARER) :].strip()
        presented = hashlib.sha256(secret).digest()
        found = self.holder(presented)
        if found is None and self._oidc is not None and is_token(secret):
            return await self._oidc.caller(secret.decode("ascii", "replace"))
        if found is None:
            raise no_key("the key is not known here, or has expired")
        return found

    def holder(self, presented: bytes) -> Caller | None:
        """The caller whose key has that SHA-256; None for an unknown, revoked or expired one."""
        # Every hash is compared, so the time taken does not say which one was close.
        fixed = [caller for digest, caller in self._fixed if hmac.compare_digest(presented, digest)]
        return fixed[0] if fixed else self.ring.caller(presented)


def require_admin(caller: Caller) -> None:
    """Raises ApiError 403."""
    if not caller.is_admin:
        raise ApiError(
            "this key may not see or change what concerns all teams; allowed: a key made with --admin, or one of "
            "COE_API_KEYS",
            status=403,
            code="admin_required",
        )


class OriginCheck:
    """Looks at `host` and `origin` of every request.

    On a loopback address `host` must be a name of this machine or configured: a page whose own name its owner has made
    point here (DNS rebinding) sends that name. On others keys guard, and `host` counts where names are configured. A
    request that says by `origin` that a page made it must come from the gateway's own address, or a configured one.

    Args:
        bound_host: address that the gateway listens on.
        hosts: further names, without port.
        origins: further origins, as browsers write them.
    """

    def __init__(self, bound_host: str, hosts: Sequence[str] = (), origins: Sequence[str] = ()) -> None:
        self._hosts = frozenset(name.lower() for name in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)
        self._must_know_host = bool(self._hosts) or is_loopback(bound_host)
        self._passed: bytes | None = None  # the `host` that passed last: nearly always the next one, too

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises ApiError 403. A request of HTTP/1.0 may have no `host`; browsers always send one."""
        host, origin = headers.get(b"host"), headers.get(b"origin")
        if origin is None and host is not None and host == self._passed:
            return
        if host is not None and self._must_know_host:
            found = AUTHORITY.fullmatch(plain(host))
            if found is None or not (is_loopback(found[1]) or found[1].strip("[].") in self._hosts):
                raise forbidden("host", host, "localhost, a loopback address, or a name of gateway.allowed_hosts")
        if origin is not None and plain(origin) not in self._origins and not is_own(plain(origin), plain(host or b"")):
            raise forbidden("origin", origin, "the gateway's own, or one of gateway.allowed_origins")
        self._passed = host


def readable_by(app: Application, origins: Sequence[str]) -> Application:
    """The application with CORS: pages of these origins may read its answers, headers included. Without origins, the
    application itself."""
    if not origins:
        return app
    from starlette.middleware.cors import CORSMiddleware

    allowed = [origin.lower() for origin in origins]
    return CORSMiddleware(app, allow_origins=allowed, allow_methods=["*"], allow_headers=["*"], expose_headers=["*"])


def is_own(origin: str, host: str) -> bool:
    """Returns True where a page of that origin was loaded from the address that the request went to."""
    scheme, _, authority = origin.partition("://")
    page, ours = AUTHORITY.fullmatch(authority), AUTHORITY.fullmatch(host)
    if scheme not in DEFAULT_PORTS or page is None or ours is None:
        return False
    port = DEFAULT_PORTS[scheme]
    return (page[1], page[2] or port) == (ours[1], ours[2] or port)


def plain(value: bytes) -> str:
    return value.decode("latin-1").strip().lower()


def forbidden(header: str, value: bytes, allowed: str) -> ApiError:
    shown = ascii(value.decode("latin-1")[:MAX_SHOWN_CHARS])
    return ApiError(f"the header '{header}' is {shown}; allowed: {allowed}", status=403, code=f"{header}_not_allowed")
