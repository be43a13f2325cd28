"""Client keys: known by their hash only, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping

from base.errors import ConfigError
from gateway.http_errors import ApiError

MIN_KEY_CHARS = 16  # 16 random letters and digits are 95 bits
BEARER = b"bearer "


class Auth:
    """The clients that may call `/v1/*`. Without keys everybody may, which only a loopback address allows.

    Args:
        keys: the secrets themselves; only their hashes are kept.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._hashes = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def key_id(self, headers: Mapping[bytes, bytes]) -> str | None:
        """A name for the caller's key that is safe to log; None when no keys are set.

        It owns files, stores and decisions, so it is the whole hash: keys that share a part of it can be found.

        Raises:
            ApiError: 401, the key is missing or unknown.
        """
        if not self._hashes:
            return None
        given = headers.get(b"authorization", b"")
        if given[: len(BEARER)].lower() != BEARER:
            raise refused("a key is needed: send the header 'Authorization: Bearer KEY'")
        presented = hashlib.sha256(given[len(BEARER) :].strip()).digest()
        # Every hash is compared, so the time taken does not say which one was close.
        if not any([hmac.compare_digest(presented, known) for known in self._hashes]):
            raise refused("the key in 'Authorization' is not known here")
        return f"key-{presented.hex()}"


def refused(message: str) -> ApiError:
    return ApiError(message, status=401, code="invalid_api_key", error_type="authentication_error")


def is_loopback(host: str) -> bool:
    """Returns True where only this machine can reach a server bound to that host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(host: str, keys: Iterable[str]) -> None:
    """Refuses an address that others can reach when keys are missing or could be guessed.

    Raises:
        ConfigError: one line that says what to set.
    """
    if is_loopback(host):
        return
    known = list(keys)
    if not known:
        raise ConfigError(
            f"COE_HOST={host} is reachable from other machines: set COE_API_KEYS (comma separated) or bind 127.0.0.1"
        )
    for number, key in enumerate(known, start=1):
        if len(key) < MIN_KEY_CHARS or len(set(key)) < MIN_KEY_CHARS // 2:
            raise ConfigError(
                f"COE_API_KEYS: key {number} can be guessed: use at least {MIN_KEY_CHARS} random characters "
                f"when COE_HOST={host} is reachable from other machines"
            )
