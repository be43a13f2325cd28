"""Permissions of a key or a team as the database keeps them, and the caller that a request works with. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import Field, StringConstraints

from coe.base.errors import ConfigError
from coe.decision_log.privacy import tenant_of
from coe.router.section import AUTO
from coe.router.types import Record

TEAM = re.compile(r"[a-z0-9][a-z0-9._-]{0,47}")
TEAM_RULE = "1 to 48 lower-case letters, digits, '.', '_' or '-', the first a letter or digit"
CAP = re.compile(r"(\d+(?:\.\d+)?)/([a-z]+)")
DEFAULT_ANSWER_TOKENS = 1024
DEFAULT_POLICY = "default"
NANO_PER_MICRO = 1000
NANO = 10**9
MAX_AMOUNT = 10**6 * 10**6
MAX_USD = 10**6
"""In billionths of a dollar, Redis's scripts still count it exactly."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Measure(StrEnum):
    """Quantity that a cap counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    USD = "usd"


class Window(StrEnum):
    """Stretch of time that a cap holds for. Windows follow the clock and the calendar in UTC."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    def bounds(self, at: float) -> tuple[int, int]:
        """First second of the window around a time (Unix seconds), and of the next one."""
        if self is Window.MONTH:
            day = datetime.fromtimestamp(at, UTC)
            first = datetime(day.year, day.month, 1, tzinfo=UTC)
            after = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
            return int(first.timestamp()), int(after.timestamp())
        length = {Window.MINUTE: 60, Window.HOUR: 3600, Window.DAY: 86_400}[self]
        start = int(at) // length * length
        return start, start + length


class Cap(Record):
    """The most of something within one window."""

    measure: Measure
    amount: float = Field(ge=0, le=MAX_AMOUNT)
    window: Window

    @property
    def name(self) -> str:
        """The cap without its amount, which names its counter."""
        return f"{self.measure}/{self.window}"

    @property
    def units(self) -> int:
        """The amount as counters store it: money in billionths of a dollar."""
        return round(self.amount * NANO) if self.measure is Measure.USD else int(self.amount)

    def __str__(self) -> str:
        return f"{self.amount:.12g} {self.measure} per {self.window}"


class Grant(Record):
    """Permissions. None for experts or policies allows all of them."""

    caps: tuple[Cap, ...] = ()
    experts: tuple[Name, ...] | None = None
    policies: tuple[Name, ...] | None = None
    answer_tokens: int | None = Field(default=None, ge=1)
    expires_at: float | None = None
    is_admin: bool = False


@dataclass(frozen=True)
class ScopedCap:
    """A cap, and whose it is: `scope` is the id of a key or the name of a team."""

    scope: str
    cap: Cap


@dataclass(frozen=True)
class Caller:
    """The sender of a request. The default is everybody on a gateway without keys.

    `tenant` owns what it makes: files, stores, decisions and its part of an engine's cache. `caps` are those of its key
    and its team.
    """

    key_id: str | None = None
    is_admin: bool = True
    experts: frozenset[str] | None = None
    policies: frozenset[str] | None = None
    caps: tuple[ScopedCap, ...] = ()
    answer_tokens: int = DEFAULT_ANSWER_TOKENS

    @cached_property
    def tenant(self) -> str:
        return tenant_of(self.key_id)

    @cached_property
    def has_costs(self) -> bool:
        """Returns True where a cap counts what a request costs, so that its cost must have a bound."""
        return any(scoped.cap.measure is not Measure.REQUESTS for scoped in self.caps)

    def may_ask(self, model: str) -> bool:
        """Returns True where a request may name that model: `auto`, `auto:POLICY` or an expert."""
        name, is_policy, policy = model.partition(":")
        if name == AUTO:
            return self.policies is None or (policy if is_policy else DEFAULT_POLICY) in self.policies
        return self.experts is None or model in self.experts


EVERYBODY = Caller()


def caller_of(key_id: str, own: Grant, team: Grant) -> Caller:
    """The caller with a key: it must be allowed by its key and by its team, and stays within the caps of both."""
    scopes = ((key_id, own), (tenant_of(key_id), team))
    return Caller(
        key_id=key_id,
        is_admin=own.is_admin,
        experts=both(own.experts, team.experts),
        policies=both(own.policies, team.policies),
        caps=tuple(ScopedCap(scope, cap) for scope, grant in scopes for cap in grant.caps),
        answer_tokens=own.answer_tokens or team.answer_tokens or DEFAULT_ANSWER_TOKENS,
    )


def both(one: Collection[str] | None, other: Collection[str] | None) -> frozenset[str] | None:
    """The names in both lists; None is the list of all."""
    lists = [frozenset(names) for names in (one, other) if names is not None]
    return frozenset.intersection(*lists) if lists else None


def parse_caps(measure: Measure, texts: Iterable[str]) -> tuple[Cap, ...]:
    """Caps such as `5/day`. Raises ConfigError."""
    caps = []
    for text in texts:
        found = CAP.fullmatch(text.strip())
        if found is None or found[2] not in tuple(Window):
            windows = ", ".join(Window)
            raise ConfigError(f"--{measure} {text!r} is not a cap; allowed: AMOUNT/WINDOW with a window of {windows}")
        amount, most = float(found[1]), MAX_USD if measure is Measure.USD else MAX_AMOUNT
        if amount > most:
            raise ConfigError(f"--{measure} {text!r} is too much; allowed: at most {most}")
        if measure is not Measure.USD and not amount.is_integer():
            raise ConfigError(f"--{measure} {text!r}: the amount is not a whole number")
        caps.append(Cap(measure=measure, amount=amount, window=Window(found[2])))
    if len({cap.window for cap in caps}) < len(caps):
        raise ConfigError(f"--{measure}: two caps are of the same window; allowed: one for each")
    return tuple(caps)


def check_team(team: str) -> None:
    """Raises ConfigError."""
    if not TEAM.fullmatch(team):
        raise ConfigError(f"the team {team[:60]!r} is not a name; allowed: {TEAM_RULE}")
