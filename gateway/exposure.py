"""Addresses that other machines can reach, and the keys that they need. Imports little: it runs before all else."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from base.errors import ConfigError

MIN_KEY_CHARS = 16  # 16 random letters and digits are 95 bits


def is_loopback(host: str) -> bool:
    """Returns True where only this machine can reach a server bound to that host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_strength(host: str, keys: Iterable[str]) -> None:
    """Refuses keys of COE_API_KEYS that could be guessed on an address that others can reach.

    Raises:
        ConfigError: one line that says what to set.
    """
    for number, key in enumerate(keys, start=1):
        if not is_loopback(host) and (len(key) < MIN_KEY_CHARS or len(set(key)) < MIN_KEY_CHARS // 2):
            raise ConfigError(
                f"COE_API_KEYS: key {number} can be guessed: use at least {MIN_KEY_CHARS} random characters "
                f"when COE_HOST={host} is reachable from other machines"
            )


def check_exposure(host: str, *, has_keys: bool) -> None:
    """Refuses an address that others can reach when nobody would need a key.

    Raises:
        ConfigError: one line that says what to do.
    """
    if not has_keys and not is_loopback(host):
        raise ConfigError(
            f"COE_HOST={host} is reachable from other machines: make a key with `coe keys create`, set COE_API_KEYS "
            "(comma separated), or bind 127.0.0.1"
        )
