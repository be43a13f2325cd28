"""`coe keys create`, `ls` and `update`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from coe.base.errors import ConfigError, allowed_values
from coe.base.period import parse_period
from coe.base.private_folder import make_private
from coe.base.visible_text import echo
from coe.cli.options import ConfigOption, DataOption, with_options
from coe.cli.terminal import Grid, Terminal
from coe.decision_log.admin_log import AdminLog, first_broken, operator
from coe.decision_log.connections import given_redis, opened_database, run_with_redis
from coe.fleet.processes.own_redis import running_url
from coe.gateway.keys.counters import read_used, shown
from coe.gateway.keys.grants import Grant, Measure, parse_caps
from coe.gateway.keys.key_store import Key, KeyStore
from coe.router.config.composition import load_config
from coe.router.types import Record

NONE = "none"
CONFIG, DATA = Path("experts.yaml"), Path("data")

CAPS_HELP = "AMOUNT/minute, hour, day or month; repeat for several windows, 'none' for no cap"
NAMES_HELP = "names of experts.yaml, separated by commas, or 'all'"


class Changes(Record):
    """Options of a grant; those that are not given change nothing."""

    requests: list[str] | None = Field(default=None, description=CAPS_HELP)
    tokens: list[str] | None = Field(default=None, description=CAPS_HELP)
    usd: list[str] | None = Field(default=None, description=CAPS_HELP)
    experts: str | None = Field(default=None, description=NAMES_HELP)
    policies: str | None = Field(default=None, description=NAMES_HELP)
    answer_tokens: int | None = Field(
        default=None, ge=1, description="longest answer, under a cap of tokens or USD, to a request that names none"
    )
    expires: str | None = Field(default=None, description="after a time such as 90d (units s, m, h, d, w), or 'never'")
    admin: bool | None = Field(default=None, description="may see and change what concerns all teams")


@with_options
def create(
    team: Annotated[str, typer.Argument(help="owner of what the key makes; its keys may share limits")],
    changes: Changes,
    name: Annotated[str, typer.Option("--name", help="a name for people to read")] = "",
    config: ConfigOption = CONFIG,
    data_dir: DataOption = DATA,
) -> None:
    """Make a key of a team. Its secret is shown once."""
    grant = changed(Grant(), config, changes)
    make_private(data_dir)  # a gateway that others can reach does not start before there is a key
    with opened_keys(data_dir) as store:
        show_secret(*store.create(team, name, grant))


def ls(
    subject: Annotated[str, typer.Argument(help="a key's id, TEAM/ID, or a team: its limits, and what is used")] = "",
    log: Annotated[bool, typer.Option("--log", help="what admins did, and who they are")] = False,
    data_dir: DataOption = DATA,
) -> int:
    """List teams and keys with their limits, or show those of one; with --log exit status 1 when lines of the log were
    changed or removed."""
    if log:
        return show_log(data_dir)
    if subject:
        show_limits(subject, data_dir)
        return 0
    with opened_keys(data_dir) as store:
        holders = store.holders()
    table, now = Grid("key or team", "name", "state", "limits"), time.time()
    for team, grant in sorted(holders.teams.items()):
        table.add_row(team, "", "team", grant_words(grant))
    for key in holders.keys:
        table.add_row(key.key_id, key.name, state_of(key, now), grant_words(key.grant))
    Terminal().print(table)
    return 0


@with_options
def update(
    subject: Annotated[str, typer.Argument(help="a key's id, TEAM/ID, or a team")],
    changes: Changes,
    rotate: Annotated[
        str | None, typer.Option(metavar="AGE", help="give the key a new secret; the old one works that long, e.g. 24h")
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="end the key for good, within a second")] = False,
    config: ConfigOption = CONFIG,
    data_dir: DataOption = DATA,
) -> None:
    """Change the limits of a key or a team; give a key a new secret, shown once, or end it."""
    if "/" not in subject and (option := "--admin" if changes.admin is not None else rotate and "--rotate"):
        raise ConfigError(f"{option}: allowed for a key, not for a team")
    with opened_keys(data_dir) as store:
        before = store.grant_of(subject)
        grant = changed(before, config, changes)
        if grant != before:
            store.set_grant(subject, grant)
        if rotate is not None:
            show_secret(subject, store.rotate(subject, parse_period("--rotate", rotate)))
        if revoke:
            store.revoke(subject)
            echo(f"{subject} is revoked")
            return
    show_limits(subject, data_dir)


def show_limits(subject: str, data_dir: Path) -> None:
    """Prints the limits of a key or a team, and what is used of its caps."""
    with opened_keys(data_dir) as store:
        grant = store.grant_of(subject)
        is_known = "/" in subject or any(key.key_id.startswith(f"{subject}/") for key in store.holders().keys)
    lines = [f"{subject}: {grant_words(grant)}"]
    if grant.caps and (url := given_redis() or running_url(data_dir / "redis")):
        now = time.time()
        for cap, used in zip(grant.caps, run_with_redis(read_used(url, subject, grant.caps, now)), strict=True):
            lines.append(f"  {shown(cap.measure, used)} of {cap}, until {time_words(cap.window.bounds(now)[1])}")
    if not is_known:
        lines.append(f"  there is no key of a team '{subject}'; `coe keys ls` lists them")
    Terminal().print("\n".join(lines), soft_wrap=True)


def show_log(data_dir: Path) -> int:
    """Prints what admins did to keys, configuration and routers; 1 when lines were changed or removed."""
    with opened_database(data_dir) as database:
        actions = AdminLog(database).actions()
    table = Grid("number", "at", "who", "action", "of what", "before", "after")
    for each in actions:
        short = (each.before[:12], each.after[:12])
        table.add_row(str(each.number), time_words(each.at), each.actor, each.action, each.subject, *short)
    Terminal().print(table)
    if broken := first_broken(actions):
        Terminal().print(f"the log was changed: line {broken} does not follow from the one before")
        return 1
    return 0


@contextmanager
def opened_keys(data_dir: Path) -> Iterator[KeyStore]:
    with opened_database(data_dir) as database:
        yield KeyStore(database, operator())


def changed(grant: Grant, config: Path, changes: Changes) -> Grant:
    """The grant with what is given. Raises ConfigError."""
    values: dict[str, object] = {}
    caps = {measure: texts for measure in Measure if (texts := getattr(changes, measure)) is not None}
    if caps:
        kept = tuple(cap for cap in grant.caps if cap.measure not in caps)
        new = (parse_caps(measure, () if NONE in texts else texts) for measure, texts in caps.items())
        values["caps"] = (*kept, *(cap for some in new for cap in some))
    for option in ("experts", "policies"):
        if (text := getattr(changes, option)) is not None:
            values[option] = parse_names(f"--{option}", text, getattr(load_config(config), option))
    if changes.answer_tokens is not None:
        values["answer_tokens"] = changes.answer_tokens
    if changes.expires is not None:
        is_never = changes.expires == "never"
        values["expires_at"] = None if is_never else time.time() + parse_period("--expires", changes.expires)
    if changes.admin is not None:
        values["is_admin"] = changes.admin
    return grant.model_copy(update=values)


def parse_names(option: str, text: str, known: Mapping[str, object]) -> tuple[str, ...] | None:
    """Names of experts.yaml; None for all. Raises ConfigError."""
    if text == "all":
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: '{name}' is not in experts.yaml{allowed_values(name, known)}")
    return names


def show_secret(key_id: str, secret: str) -> None:
    echo(f"key {key_id}; its secret, which is shown this once and kept as a hash:")
    echo(secret)


def grant_words(grant: Grant) -> str:
    parts = [str(cap) for cap in grant.caps]
    for what, names in (("experts", grant.experts), ("policies", grant.policies)):
        if names is not None:
            parts.append(f"{what} {', '.join(names) or NONE}")
    if grant.answer_tokens is not None:
        parts.append(f"answers of {grant.answer_tokens} tokens")
    if grant.expires_at is not None:
        parts.append(f"until {time_words(grant.expires_at)}")
    if grant.is_admin:
        parts.append("admin")
    return "; ".join(parts) or "no limits"


def state_of(key: Key, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.grant.expires_at is not None and key.grant.expires_at <= now else "active"


def time_words(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="minutes").removesuffix("+00:00")
