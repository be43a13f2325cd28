"""Keys from `coe keys` to the gateway: made, limited, rotated, revoked, expired, each change in the admin log."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from coe.base.errors import ConfigError, StoreError
from coe.cli import command_line
from coe.decision_log.admin_log import AdminLog, first_broken
from coe.decision_log.database import Database
from coe.decision_log.privacy import tenant_of
from coe.decision_log.tables.access import AdminLogRow, KeyRow
from coe.gateway.http.auth import Auth
from coe.gateway.http_errors import ApiError
from coe.gateway.keys.counters import Cost
from coe.gateway.keys.grants import Cap, Grant, Measure, Window, both, caller_of, parse_caps
from coe.gateway.keys.key_ring import KeyRing
from coe.gateway.keys.key_store import Holders, KeyStore, digest_of
from coe.gateway.keys.limits import Limits
from tests.waiting import until

USD = Cap(measure=Measure.USD, amount=5, window=Window.MONTH)


@pytest.fixture
def keys(database_url: str) -> Iterator[KeyStore]:
    database = Database(database_url)
    yield KeyStore(database, "ann@host")
    with database.transaction("empty") as connection:  # Postgres is shared, and a gateway over it would ask for keys
        for table in ("access_keys", "access_teams", "access_log"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    database.close()


def bearer(secret: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {secret}".encode()}


async def test_a_key_lets_in_until_it_is_revoked(keys: KeyStore) -> None:
    auth = Auth(ring=KeyRing(keys))
    await auth.ring.start()
    assert (await auth.caller({})).key_id is None, "no key was ever made"
    key_id, secret = keys.create("acme", "app", Grant(caps=(USD,)))
    await until(lambda: auth.needs_key)
    caller = await auth.caller(bearer(secret))
    assert (caller.key_id, caller.tenant, caller.is_admin) == (key_id, "acme", False)
    assert [(scoped.scope, scoped.cap) for scoped in caller.caps] == [(key_id, USD)]
    for wrong in ("", secret[:-1], secret + "x", secret.upper()):
        with pytest.raises(ApiError) as refused:
            await auth.caller(bearer(wrong))
        assert refused.value.status == 401
        assert secret not in str(refused.value)
    keys.revoke(key_id)
    await until(lambda: auth.ring.version == 2)
    assert not await keeps_in(auth, secret)
    assert auth.needs_key, "the gateway does not open when its last key ends"
    await auth.ring.aclose()


async def keeps_in(auth: Auth, secret: str) -> bool:
    try:
        await auth.caller(bearer(secret))
    except ApiError:
        return False
    return True


async def test_a_rotated_key_keeps_its_id_and_the_old_secret_ends(keys: KeyStore) -> None:
    auth = Auth(ring=KeyRing(keys))
    key_id, first = keys.create("acme", "app", Grant())
    await auth.ring.start()
    second = keys.rotate(key_id, overlap_s=3600)
    await until(lambda: auth.ring.version == 2)
    assert await auth.caller(bearer(first)) == await auth.caller(bearer(second)), "both work in the overlap"
    third = keys.rotate(key_id, overlap_s=0)
    await until(lambda: auth.ring.version == 3)
    assert not await keeps_in(auth, first)
    assert not await keeps_in(auth, second)
    assert (await auth.caller(bearer(third))).key_id == key_id
    await auth.ring.aclose()


async def test_secrets_end_with_their_overlap_and_their_key(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first secret ends with its overlap, and the key with its expiry, by its secret and by its id."""
    now, ring = time.time(), KeyRing(keys)
    key_id, first = keys.create("acme", "app", Grant(expires_at=now + 86_400))
    second = keys.rotate(key_id, overlap_s=3600)
    await ring.look()
    found = []
    for later in (0, 3500, 3700, 86_300, 86_500):
        monkeypatch.setattr("coe.gateway.keys.key_ring.time", SimpleNamespace(time=partial(float, now + later)))
        callers = (ring.caller(digest_of(first)), ring.caller(digest_of(second)), ring.known(key_id))
        found.append([caller is not None for caller in callers])
    overlap, after, ended = [True] * 3, [False, True, True], [False] * 3
    assert found == [overlap, overlap, after, after, ended]


def administer(database_url: str, count: int) -> None:
    """Makes and limits keys, and notes what was done elsewhere, as one administrator."""
    with closing(Database(database_url)) as database:
        keys, log = KeyStore(database, "ann@host"), AdminLog(database)
        for _ in range(count):
            key_id, _ = keys.create("acme", "app", Grant())
            keys.set_grant(key_id, Grant(caps=(USD,)))
            log.note("ann@host", "apply", "configuration", "1", "2")


def test_administrators_in_several_processes_wait_for_each_other(keys: KeyStore, database_url: str) -> None:
    with ProcessPoolExecutor(4, get_context("spawn")) as processes:
        list(processes.map(partial(administer, database_url), [12] * 4))
    actions = AdminLog(keys._database).actions()
    assert [each.number for each in actions] == list(range(1, 4 * 12 * 3 + 1))
    assert first_broken(actions) is None
    assert len(keys.holders().keys) == 48


async def test_a_change_reads_what_changed_alone(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing(keys)
    made = [keys.create(team, "", Grant()) for team in ("acme", "acme", "acme_", "rival", "rival")]
    await ring.look()
    read: list[str] = []
    changes = keys.changes

    def counted(since: int) -> Holders:
        found = changes(since)
        read[:] = sorted(key.key_id for key in found.keys)
        return found

    monkeypatch.setattr(keys, "changes", counted)
    (first, old), second, like, (ended, gone), _ = made
    for change, ids in (
        (lambda: keys.rotate(first, 0), [first]),
        (lambda: keys.revoke(ended), [ended]),
        (lambda: keys.set_grant("acme", Grant(caps=(USD,))), sorted([first, second[0]])),
        (lambda: AdminLog(keys._database).note("ann@host", "promote", "router", "1", "2"), []),
        (lambda: None, []),
    ):
        change()
        await ring.look()
        assert read == ids
    assert [ring.caller(digest_of(secret)) is None for secret in (old, second[1], gone)] == [True, False, True]
    assert [ring.known(key_id) is None for key_id in (first, ended, like[0], "acme/none")] == [False, True, False, True]
    assert [len(getattr(ring.known(each), "caps", ())) for each in (first, second[0], like[0])] == [1, 1, 0]
    with keys._database.transaction("put an earlier copy back") as connection:
        connection.exec_driver_sql(f"DELETE FROM access_keys WHERE key_id = '{second[0]}'")
        connection.exec_driver_sql("DELETE FROM access_log WHERE number > 3")
    await ring.look()
    assert len(read) == 4, "all are read where the database is one of before"
    assert ring.known(second[0]) is None


async def test_expired_keys_and_teams_are_refused(keys: KeyStore) -> None:
    now = time.time()
    _, past = keys.create("acme", "", Grant(expires_at=now - 1))
    _, future = keys.create("acme", "", Grant(expires_at=now + 3600))
    _, of_ended_team = keys.create("gone", "", Grant())
    keys.set_grant("gone", Grant(expires_at=now - 1))
    auth = Auth(ring=KeyRing(keys))
    await auth.ring.start()
    assert [await keeps_in(auth, secret) for secret in (past, future, of_ended_team)] == [False, True, False]
    await auth.ring.aclose()


async def test_keys_outlive_the_database(keys: KeyStore, caplog: pytest.LogCaptureFixture) -> None:
    _, secret = keys.create("acme", "", Grant())
    ring = KeyRing(keys)
    await ring.start()
    keys.changes = failing
    await until(lambda: "a newer state of keys waits" in caplog.text)
    assert ring.caller(digest_of(secret)) is not None
    await ring.aclose()


def failing(since: int) -> Holders:
    raise StoreError("the database is away")


def test_no_secret_is_kept(keys: KeyStore) -> None:
    key_id, secret = keys.create("acme", "", Grant())
    assert len(secret) == len("sk-coe-") + 43  # 256 bits in base64
    keys.rotate(key_id, 60)
    with keys._database.transaction("look into") as connection:
        kept = repr([*connection.execute(select(KeyRow)), *connection.execute(select(AdminLogRow))])
    assert secret not in kept
    assert secret.removeprefix("sk-coe-") not in kept


def test_every_change_is_logged_and_a_changed_log_shows(keys: KeyStore) -> None:
    key_id, _ = keys.create("acme", "", Grant())
    keys.set_grant("acme", Grant(caps=(USD,)))
    keys.rotate(key_id, 0)
    keys.set_grant(key_id, Grant(caps=(USD,)))
    keys.revoke(key_id)
    for change in (
        lambda: keys.revoke(key_id),
        lambda: keys.rotate("acme/none", 0),
        lambda: keys.create("A!", "", Grant()),
    ):
        with pytest.raises(ConfigError):
            change()
    actions = AdminLog(keys._database).actions()
    assert [(each.action, each.subject, each.actor) for each in actions] == [
        ("create", key_id, "ann@host"),
        ("limits", "acme", "ann@host"),
        ("rotate", key_id, "ann@host"),
        ("limits", key_id, "ann@host"),
        ("revoke", key_id, "ann@host"),
    ]
    assert actions[0].before == actions[1].before == ""
    assert actions[2].before == actions[0].after != actions[2].after == actions[3].before
    assert first_broken(actions) is None
    assert first_broken([actions[0]._replace(actor="bob@host"), *actions[1:]]) == 1
    assert first_broken([*actions[:2], *actions[3:]]) == 3
    assert first_broken(actions[1:]) == 1


def test_permissions_are_those_of_key_and_team() -> None:
    team = Grant(caps=(USD,), experts=("ruby", "plain"), answer_tokens=50)
    caller = caller_of("acme/1", Grant(experts=("ruby", "emerald"), policies=("cheap",)), team)
    assert (caller.experts, caller.policies, caller.answer_tokens) == ({"ruby"}, {"cheap"}, 50)
    assert [caller.may_ask(name) for name in ("ruby", "plain", "auto", "auto:cheap")] == [True, False, False, True]
    assert [scoped.scope for scoped in caller.caps] == ["acme"]
    assert both(None, None) is None
    assert both((), None) == frozenset()


@pytest.mark.parametrize(("key_id", "tenant"), [(None, ""), ("acme/1", "acme"), ("key-ab12", "key-ab12")])
def test_the_tenant_of_a_key(key_id: str | None, tenant: str) -> None:
    assert tenant_of(key_id) == tenant


@given(st.floats(0, 4e9), st.sampled_from(Window))
def test_windows_follow_each_other_without_a_gap(at: float, window: Window) -> None:
    start, end = window.bounds(at)
    assert start <= at < end
    assert window.bounds(end)[0] == end
    assert window.bounds(end - 1) == window.bounds(start) == (start, end)
    if window is Window.MONTH:
        assert datetime.fromtimestamp(end, UTC).day == 1
        assert 28 <= (end - start) / 86_400 <= 31


@pytest.mark.parametrize("text", ["5", "5/week", "-1/day", "x/day", "1.5/day", "1e9/day", "9999999999999/day"])
def test_caps_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(text))):
        parse_caps(Measure.TOKENS, [text])


def test_money_is_counted_in_billionths() -> None:
    assert [cap.units for cap in parse_caps(Measure.USD, ["0.45/month", "0.000000001/day"])] == [450_000_000, 1]
    with pytest.raises(ConfigError, match="at most 1000000"):
        parse_caps(Measure.USD, ["1000001/day"])
    with pytest.raises(ConfigError, match="same window"):
        parse_caps(Measure.USD, ["1/day", "2/day"])


CONFIG = """
categories: {red: red, general: the rest}
experts: {ruby: {engine: echo, model: echo}, plain: {engine: echo, model: echo}}
router: {encoder: {kind: hashing}, classifier: {kind: logistic}}
"""


class Shell:
    """`coe keys` on a data folder, which the first `create` makes."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._options = ["--data-dir", str(folder / "data")]
        self._config = ["--config", str(folder / "experts.yaml")]
        (folder / "experts.yaml").write_text(CONFIG)
        self._capsys = capsys

    def __call__(self, command: str, *arguments: str) -> tuple[int, str]:
        config = self._config if command in ("create", "update") else []
        status = command_line.run(f"keys {command}", [*arguments, *self._options, *config])
        shown = self._capsys.readouterr()
        return status, shown.out + shown.err


@pytest.fixture
def coe_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(tmp_path, capsys)


async def spend(url: str, key_id: str) -> None:
    limits = Limits(url)
    hold = await limits.reserve(caller_of(key_id, Grant(caps=(USD,)), Grant()), Cost(1, 1_250_000_000))
    hold.settle(Cost(1, 1_250_000_000))
    await limits.aclose()


def test_limits_say_what_is_used(coe_keys: Shell, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    made = coe_keys("create", "acme", "--usd", "5/month")[1]
    key_id = re.search(r"key (acme/\w{12});", made)[1]
    asyncio.run(spend(redis_url, key_id))
    status, shown = coe_keys("ls", key_id)
    assert status == 0
    assert "1.25 of 5 usd per month, until 20" in shown


def test_the_commands(coe_keys: Shell) -> None:
    status, said = coe_keys("ls")
    assert (status, "data: there is no such data folder; `coe up`, `coe serve` and `coe keys create`" in said) == (
        1,
        True,
    )
    status, made = coe_keys("create", "acme", "--usd", "5/month", "--requests", "60/minute", "--experts", "ruby")
    assert status == 0
    key_id, secret = re.search(r"key (acme/\w{12});", made)[1], made.splitlines()[-1]
    assert secret.startswith("sk-coe-")
    status, shown = coe_keys("update", key_id, "--usd", "none", "--usd", "7/day", "--expires", "1d")
    assert "60 requests per minute; experts ruby; until" in shown
    status, shown = coe_keys("update", key_id, "--usd", "7/day", "--expires", "never", "--experts", "all")
    assert shown.strip() == f"{key_id}: 60 requests per minute; 7 usd per day"
    assert coe_keys("update", "acme", "--usd", "100/month")[1].strip() == "acme: 100 usd per month"
    assert coe_keys("ls", "acme")[1].strip() == "acme: 100 usd per month"
    assert "there is no key of a team 'acne'" in coe_keys("ls", "acne")[1]
    rotated = coe_keys("update", key_id, "--rotate", "24h")[1].splitlines()[1]
    assert rotated != secret
    assert coe_keys("update", key_id, "--revoke") == (0, f"{key_id} is revoked\n")
    listed = coe_keys("ls")[1]
    assert "revoked" in listed
    status, log = coe_keys("ls", "--log")
    assert status == 0
    assert log.count("limits") == 3, "what changes nothing is not an action"
    assert not any(hidden in listed + log for hidden in (secret, rotated))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["create", "Acme Inc"], "the team 'Acme Inc' is not a name"),
        (["create", "acme", "--experts", "rubi"], "'rubi' is not in experts.yaml; did you mean 'ruby'?"),
        (["create", "acme", "--policies", "cheap"], "'cheap' is not in experts.yaml; allowed: default"),
        (["create", "acme", "--usd", "5"], "--usd '5' is not a cap; allowed: AMOUNT/WINDOW"),
        (
            ["create", "acme", "--expires", "soon"],
            "--expires: 'soon' is not a period; allowed: a number above 0 with s, m",
        ),
        (["update", "acme/1", "--usd", "1/day"], "there is no key 'acme/1'"),
        (["update", "acme", "--admin"], "--admin: allowed for a key"),
        (["update", "acme", "--rotate", "1h"], "--rotate: allowed for a key"),
        (["update", "acme/none", "--revoke"], "there is no key 'acme/none'"),
    ],
)
def test_wrong_arguments_are_one_line(coe_keys: Shell, arguments: list[str], complaint: str) -> None:
    coe_keys("create", "other")
    status, shown = coe_keys(*arguments)
    assert status == 1
    assert complaint in shown
    assert len(shown.splitlines()) == 1
