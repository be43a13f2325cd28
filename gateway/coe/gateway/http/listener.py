"""The socket that a gateway listens on, and the keys that an address needs which other machines can reach. Imports
little: it runs before all else."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from coe.base.errors import ConfigError

BACKLOG = 2048


def url_of(host: str, port: int) -> str:
    """The API root for OpenAI clients."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError: the port is taken, or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # Python adds the address, which is named here
        raise ConfigError(
            f"cannot listen on {host}:{port}: {reason}; choose another by --port (0: any free one) or COE_PORT"
        ) from error


MIN_KEY_CHARS = 16  # 16 random letters and digits are 95 bits


def is_loopback(host: str) -> bool:
    """Returns True where only this machine can reach a server bound to that host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_strength(host: str, keys: Iterable[str]) -> None:
    """Refuses keys of COE_API_KEYS that could be guessed on an address that others can reach. Raises ConfigError."""
    for number, key in enumerate(keys, start=1):
        if not is_loopback(host) and (len(key) < MIN_KEY_CHARS or len(set(key)) < MIN_KEY_CHARS // 2):
            raise ConfigError(
                f"COE_API_KEYS: key {number} can be guessed: use at least {MIN_KEY_CHARS} random characters "
                f"when COE_HOST={host} is reachable from other machines"
            )


def check_exposure(host: str, *, has_keys: bool) -> None:
    """Refuses an address that others can reach when nobody would need a key. Raises ConfigError."""
    if not has_keys and not is_loopback(host):
        raise ConfigError(
            f"COE_HOST={host} is reachable from other machines: make a key with `coe keys create`, set COE_API_KEYS "
            "(separated by commas), or bind 127.0.0.1"
        )
