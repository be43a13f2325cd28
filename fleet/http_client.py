"""aiohttp, imported without what most gateways never use. Whoever needs aiohttp takes it from here."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def late_authorities() -> Iterator[None]:
    """Inside, a TLS context that is made reads the certificates of the system's authorities not at once but for its
    first connection."""
    read = ssl.SSLContext.set_default_verify_paths

    def read_later(context: ssl.SSLContext) -> None:
        wrap = context.wrap_bio  # by which every event loop begins TLS

        def wrap_first(*arguments: Any, **options: Any) -> ssl.SSLObject:
            context.wrap_bio = wrap  # type: ignore[method-assign]
            read(context)
            return wrap(*arguments, **options)

        context.wrap_bio = wrap_first  # type: ignore[method-assign]

    ssl.SSLContext.set_default_verify_paths = read_later  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ssl.SSLContext.set_default_verify_paths = read  # type: ignore[method-assign]


with late_authorities():  # it makes two contexts for itself: of 146 authorities 2.2 MiB and 15 ms
    import aiohttp as aiohttp
