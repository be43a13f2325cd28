"""The keys of SQL in memory: read when they change, so that a request asks no database."""

from __future__ import annotations

import asyncio
import hmac
import time
from dataclasses import dataclass

from coe.base.errors import StoreError
from coe.decision_log.privacy import tenant_of
from coe.fleet.processes.tasks import Poller
from coe.gateway.keys.grants import Caller, Grant, caller_of
from coe.gateway.keys.key_store import Holders, Key, KeyStore

POLL_S = 0.4
"""A revoked key is refused within a second."""


@dataclass(frozen=True)
class Secret:
    """A secret that opens the gateway until `until` (Unix seconds)."""

    digest: bytes
    caller: Caller
    until: float


class KeyRing(Poller):
    """Without a store it is empty for ever. While SQL is away, the keys are those that were read last."""

    def __init__(self, store: KeyStore | None = None) -> None:
        super().__init__("a newer state of keys", POLL_S, (StoreError,), POLL_S)
        self.version = -1
        self.has_keys = False  # true once a key was made, also when it was revoked: nobody gets in without one then
        self._store = store
        self._by_digest: dict[bytes, Secret] = {}
        self._by_key: dict[str, list[Secret]] = {}
        self._teams: dict[str, Grant] = {}

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
        found = self._by_digest.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest) or time.time() >= found.until:
            return None
        return found.caller

    def known(self, key_id: str) -> Caller | None:
        """The caller with that key; None for an unknown, revoked or expired one."""
        now = time.time()
        return next((each.caller for each in self._by_key.get(key_id, ()) if now < each.until), None)

    def team(self, team: str) -> Grant | None:
        """The grant of a team that was named to the gateway; None for others."""
        return self._teams.get(team)

    async def look(self) -> None:
        """Reads the keys that have changed. Raises StoreError."""
        if self._store is not None:
            found = await asyncio.to_thread(self._store.changes, self.version)
            if found.version != self.version:
                self._take(found)

    def _take(self, found: Holders) -> None:
        if found.is_all:
            self._by_digest, self._by_key, self._teams = {}, {}, {}
        self._teams.update(found.teams)
        for key in found.keys:
            team = self._teams.setdefault(tenant_of(key.key_id), Grant())
            for secret in self._by_key.pop(key.key_id, ()):
                del self._by_digest[secret.digest]
            self._by_key[key.key_id] = secrets_of(key, team)
            self._by_digest |= {secret.digest: secret for secret in self._by_key[key.key_id]}
        self.version, self.has_keys = found.version, bool(self._by_key)


def secrets_of(key: Key, team: Grant) -> list[Secret]:
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
