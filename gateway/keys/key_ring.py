"""The keys of SQL in memory: read when they change, so that a request asks no database."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from base.errors import StoreError
from fleet.tasks import Poller
from gateway.keys.grants import Caller, Grant, caller_of, tenant_of
from gateway.keys.key_store import KeyRow, KeyStore

POLL_S = 0.4
"""A revoked key is refused within a second."""


@dataclass(frozen=True)
class Secret:
    """A secret that opens the gateway until `until` (Unix seconds)."""

    digest: bytes
    caller: Caller
    until: float


@dataclass(frozen=True)
class Ring:
    """All of it at one version; replaced as a whole."""

    version: int = -1
    secrets: Mapping[bytes, Secret] = field(default_factory=dict)
    teams: Mapping[str, Grant] = field(default_factory=dict)


class KeyRing(Poller):
    """Without a store it is empty for ever. While SQL is away, the keys are those that were read last."""

    def __init__(self, store: KeyStore | None = None) -> None:
        super().__init__("a newer state of keys", POLL_S, (StoreError,), POLL_S)
        self._store, self._ring = store, Ring()
        self.has_keys = False  # true once a key was made, also when it was revoked: nobody gets in without one then

    async def start(self) -> None:
        """Reads all keys. Raises StoreError."""
        if self._store is not None:
            await self.look()
            await super().start()

    def caller(self, digest: bytes) -> Caller | None:
        """The caller whose secret has that SHA-256; None for an unknown, revoked or expired one.

        A dictionary finds the entry, and its time may tell something of the hash, which no sender can choose: who can
        make a secret with a given beginning of its hash has still found nothing. The comparison that lets in is of all
        bits, in constant time.
        """
        found = self._ring.secrets.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest) or time.time() >= found.until:
            return None
        return found.caller

    def known(self, key_id: str) -> Caller | None:
        """The caller with that key; None for an unknown, revoked or expired one."""
        now, secrets = time.time(), self._ring.secrets.values()
        return next((each.caller for each in secrets if each.caller.key_id == key_id and now < each.until), None)

    def team(self, team: str) -> Grant | None:
        """The grant of a team that was named to the gateway; None for others."""
        return self._ring.teams.get(team)

    async def look(self) -> None:
        """Reads the keys where they have changed. Raises StoreError."""
        if self._store is not None and await asyncio.to_thread(self._store.version) != self._ring.version:
            holders = await asyncio.to_thread(self._store.holders)
            teams = {tenant_of(key.key_id): Grant() for key in holders.keys} | dict(holders.teams)
            found = [secret for key in holders.keys for secret in secrets_of(key, teams[tenant_of(key.key_id)])]
            self._ring = Ring(holders.version, {secret.digest: secret for secret in found}, teams)
            self.has_keys = bool(holders.keys)


def secrets_of(key: KeyRow, team: Grant) -> list[Secret]:
    """The secrets of a key that work now, or did before they expired."""
    if key.revoked_at is not None:
        return []
    caller = caller_of(key.key_id, key.grant, team)
    ends = [end for end in (key.grant.expires_at, team.expires_at) if end is not None]
    until = min(ends, default=float("inf"))
    found = [Secret(key.digest, caller, until)]
    if key.old_digest is not None and key.old_until is not None:
        found.append(Secret(key.old_digest, caller, min(until, key.old_until)))
    return found
