"""The tables of keys and teams. Grants are JSON; no secret is kept, only its hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Float, LargeBinary, Text
from sqlmodel import Field, SQLModel

if TYPE_CHECKING:
    from sqlalchemy import Table


class KeyRow(SQLModel, table=True):
    """One key. `digest` is the SHA-256 of its secret; the one before a rotation works until `old_until`."""

    __tablename__ = "access_keys"

    key_id: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(sa_type=Text)
    grant_json: str = Field(sa_type=Text)
    digest: bytes = Field(sa_type=LargeBinary, unique=True)
    old_digest: bytes | None = Field(default=None, sa_type=LargeBinary)
    old_until: float | None = Field(default=None, sa_type=Float)
    created_at: float = Field(sa_type=Float)
    revoked_at: float | None = Field(default=None, sa_type=Float)


class TeamRow(SQLModel, table=True):
    """One team with its own limits, beside those of its keys."""

    __tablename__ = "access_teams"

    team: str = Field(primary_key=True, sa_type=Text)
    grant_json: str = Field(sa_type=Text)


KEYS: Table = SQLModel.metadata.tables["access_keys"]
TEAMS: Table = SQLModel.metadata.tables["access_teams"]
TABLES = [KEYS, TEAMS]
