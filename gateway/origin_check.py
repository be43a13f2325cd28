"""Keeps web pages away: a browser sends their requests to any address, also to those that only its machine reaches."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from starlette.middleware.cors import CORSMiddleware

from gateway.asgi import Application
from gateway.http_errors import ApiError
from gateway.listener import is_loopback

AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
DEFAULT_PORTS = {"http": "80", "https": "443"}
MAX_SHOWN_CHARS = 100


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
