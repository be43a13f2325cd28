"""The socket that a gateway listens on."""

from __future__ import annotations

import socket

from base.errors import ConfigError

BACKLOG = 2048


def url_of(host: str, port: int) -> str:
    """The API root for OpenAI clients."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another by --port (0: any free one) or COE_PORT"
        ) from error
