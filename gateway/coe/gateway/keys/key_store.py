"""Keys and teams in SQL. Each change and its line of the admin log are one transaction."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import insert, or_, select, update
from sqlalchemy.engine import Connection
from sqlmodel import col

from coe.base.errors import ConfigError, allowed_values
from coe.decision_log.admin_log import add_line, hold_log, newest
from coe.decision_log.database import Database
from coe.decision_log.privacy import tenant_of
from coe.decision_log.tables.access import AdminLogRow, KeyRow, TeamRow
from coe.gateway.keys.grants import Grant, check_team

SECRET_START = "sk-coe-"
SECRET_BYTES = 32
ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `digest` is the SHA-256 of its secret; the one before a rotation works until `old_until`."""

    key_id: str
    name: str
    grant_json: str
    digest: bytes
    old_digest: bytes | None
    old_until: float | None
    created_at: float
    revoked_at: float | None

    @property
    def grant(self) -> Grant:
        return grant_in(self.grant_json)


@lru_cache(1024)
def grant_in(text: str) -> Grant:
    """The grant of a row. Most keys have one of a few, and reading 100,000 of them took six seconds."""
    return Grant.model_validate_json(text)


@dataclass(frozen=True)
class Holders:
    """Keys and teams at one version, which is the number of admin actions so far: all of them, or those that changed
    since another version. The keys of a team that changed are among them."""

    version: int
    keys: Sequence[Key]
    teams: Mapping[str, Grant]
    is_all: bool


class KeyStore:
    """Calls block. All raise StoreError; those that change something also ConfigError.

    Args:
        actor: name of the operator, for the admin log.
    """

    def __init__(self, database: Database, actor: str = "") -> None:
        self._database, self._actor = database, actor

    def holders(self) -> Holders:
        """All of them, by id."""
        with self._database.transaction("read keys") as connection:
            version = newest(connection)  # first: a change after it is read again
            keys = [Key(**row._mapping) for row in connection.execute(select(KeyRow))]
            teams = {row.team: grant_in(row.grant_json) for row in connection.execute(select(TeamRow))}
        return Holders(version, sorted(keys, key=lambda key: key.key_id), teams, is_all=True)

    def changes(self, since: int) -> Holders:
        """Changes since a version; all keys where the database was put back to before it."""
        with self._database.transaction("read changed keys") as connection:
            version = newest(connection)
            if version == since:
                return Holders(version, (), {}, is_all=False)
            if version > since >= 0:
                lines = select(col(AdminLogRow.subject)).where(col(AdminLogRow.number) > since)
                changed = connection.execute(select(TeamRow).where(col(TeamRow.team).in_(lines)))
                teams = {row.team: grant_in(row.grant_json) for row in changed}
                theirs = (col(KeyRow.key_id).startswith(f"{team}/", autoescape=True) for team in teams)
                query = select(KeyRow).where(or_(col(KeyRow.key_id).in_(lines), *theirs))
                keys = [Key(**row._mapping) for row in connection.execute(query)]
                return Holders(version, keys, teams, is_all=False)
        return self.holders()

    def create(self, team: str, name: str, grant: Grant) -> tuple[str, str]:
        """A new key of a team: its id, and its secret, which is not kept."""
        check_team(team)
        key_id, secret = f"{team}/{secrets.token_hex(ID_DIGITS // 2)}", new_secret()
        with self._change("create", key_id) as connection:
            values = {"key_id": key_id, "name": name, "digest": digest_of(secret), "created_at": time.time()}
            connection.execute(insert(KeyRow).values(**values, grant_json=grant.model_dump_json()))
        return key_id, secret

    def rotate(self, key_id: str, overlap_s: float) -> str:
        """A new secret for a key; the present one works for `overlap_s` more."""
        secret = new_secret()
        with self._change("rotate", key_id) as connection:
            key = live_key(connection, key_id)
            old = {"old_digest": key.digest, "old_until": time.time() + overlap_s} if overlap_s else {}
            values = {"old_digest": None, "old_until": None, "digest": digest_of(secret)} | old
            connection.execute(update(KeyRow).where(col(KeyRow.key_id) == key_id).values(**values))
        return secret

    def revoke(self, key_id: str) -> None:
        """Ends a key for good. Its row stays, because it owns what it made."""
        with self._change("revoke", key_id) as connection:
            live_key(connection, key_id)
            connection.execute(update(KeyRow).where(col(KeyRow.key_id) == key_id).values(revoked_at=time.time()))

    def grant_of(self, subject: str) -> Grant:
        """The grant of a key `TEAM/ID` or of a team; an empty one for a team that has none."""
        with self._database.transaction("read keys") as connection:
            if "/" in subject:
                return live_key(connection, subject).grant
            check_team(subject)
            found = connection.execute(
                select(col(TeamRow.grant_json)).where(col(TeamRow.team) == subject)
            ).scalar_one_or_none()
        return Grant() if found is None else grant_in(found)

    def set_grant(self, subject: str, grant: Grant) -> None:
        """Replaces the grant of a key or a team."""
        values = {"grant_json": grant.model_dump_json()}
        with self._change("limits", subject) as connection:
            if "/" in subject:
                live_key(connection, subject)
                connection.execute(update(KeyRow).where(col(KeyRow.key_id) == subject).values(**values))
                return
            check_team(subject)
            insert = self._database.insert(TeamRow).values(team=subject, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=["team"], set_=values))

    @contextmanager
    def _change(self, action: str, subject: str) -> Iterator[Connection]:
        """A transaction that ends with its line in the admin log. Others wait until it has ended."""
        with self._database.transaction("change keys") as connection:
            hold_log(connection)
            before = state_hash(connection, subject)
            yield connection
            add_line(connection, (self._actor, action, subject, before, state_hash(connection, subject)))


def live_key(connection: Connection, key_id: str) -> Key:
    """Raises ConfigError: no such key, or it was revoked."""
    row = connection.execute(select(KeyRow).where(col(KeyRow.key_id) == key_id)).one_or_none()
    if row is None:
        team = tenant_of(key_id)
        known = (
            connection.execute(select(col(KeyRow.key_id)).where(col(KeyRow.key_id).startswith(f"{team}/")))
            .scalars()
            .all()
        )
        raise ConfigError(f"there is no key '{key_id}'{allowed_values(key_id, known)}")
    if row.revoked_at is not None:
        raise ConfigError(f"the key '{key_id}' is revoked; allowed: a key that is not")
    return Key(**row._mapping)


def state_hash(connection: Connection, subject: str) -> str:
    """The hash of a subject's row; '' when it has none."""
    table, column = (KeyRow, col(KeyRow.key_id)) if "/" in subject else (TeamRow, col(TeamRow.team))
    row = connection.execute(select(table).where(column == subject)).one_or_none()
    return "" if row is None else hashlib.sha256(repr(tuple(row)).encode()).hexdigest()


def new_secret() -> str:
    return SECRET_START + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """The hash by which a secret is known. It has 256 random bits, so nothing can be tried against the hash: a slow
    hash with a salt, as passwords need, would only cost time on every request."""
    return hashlib.sha256(secret.encode()).digest()
