from __future__ import annotations

import pytest

from coe.base.errors import ConfigError
from coe.decision_log.redis_client import connect, hosts_of, same_slot


def slot(key: str) -> int:
    from redis.crc import key_slot

    return int(key_slot(key.encode()))


@pytest.mark.parametrize("key", ["coe:decisions", "{coe}:decisions", "log{coe}s"])
def test_a_second_key_is_in_the_slot_of_the_first(key: str) -> None:
    other = same_slot(key, ":dead")
    assert other != key
    assert slot(other) == slot(key)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://host:6379",
        "redis+cluster://",
        "redis+cluster://host:6379,",
        "redis+cluster://host:6379/3",
        "redis+cluster://host:port",
        "redis+sentinel://host:26379",
        "redis+sentinel://host:26379/service/db",
        "unix+cluster://host:6379",
        "redis+sentinels://me:secret@host:26379/service",
    ],
)
def test_urls_that_are_refused_say_what_is_allowed_and_no_password(url: str) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL is not a Redis URL; allowed: redis://HOST") as caught:
        connect(url)
    assert "secret" not in str(caught.value)


def test_hosts_have_ports_of_their_own_or_the_default() -> None:
    from urllib.parse import urlsplit

    url = urlsplit("redis+cluster://me:p,w@one:1,two,[::1]:3/")
    assert hosts_of(url, 6379) == [("one", 1), ("two", 6379), ("::1", 3)]


async def test_a_cluster_gets_every_host_user_password_and_tls() -> None:
    client = connect("rediss+cluster://me:p%40w@one:7001,two:7002?ssl_cert_reqs=none")
    names = set(client.nodes_manager.startup_nodes)
    assert names == {"one:7001", "two:7002"}
    options = client.nodes_manager.connection_kwargs
    assert (options["username"], options["password"], options["ssl_cert_reqs"]) == ("me", "p@w", "none")
    await client.aclose()


async def test_sentinels_have_credentials_of_their_own_and_the_master_those_of_the_url() -> None:
    client = connect("redis+sentinel://me:p%40w@one,two:26380/orders/2?sentinel_password=other")
    pool = client.connection_pool
    assert (pool.service_name, pool.connection_kwargs["db"], pool.connection_kwargs["password"]) == ("orders", 2, "p@w")
    asked = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"], each["password"]) for each in asked] == [
        ("one", 26379, "other"),
        ("two", 26380, "other"),
    ]
    await client.aclose()
