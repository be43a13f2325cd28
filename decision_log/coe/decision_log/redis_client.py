"""Clients of Redis or Valkey by URL: one server, a Redis Cluster, or the master that Sentinels name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from redis.exceptions import RedisClusterException as RedisClusterException
from redis.exceptions import RedisError as RedisError
from redis.exceptions import ResponseError as ResponseError

from coe.base.errors import ConfigError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.cluster import RedisCluster

    RedisClient: TypeAlias = Redis | RedisCluster

TIMEOUT_S = 5.0
REDIS_PORT, SENTINEL_PORT = 6379, 26379
SECURE = "rediss"

REDIS_ERRORS = (RedisError, RedisClusterException, OSError)
"""Errors of any command while Redis is unavailable or refuses; a cluster's own error is not a RedisError."""

ALLOWED = (
    "allowed: redis://HOST:PORT, unix://PATH, redis+cluster://HOST:PORT,HOST:PORT, "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE[/DB]; rediss for redis where TLS is spoken"
)


def connect(redis_url: str, *, timeout_s: float = TIMEOUT_S) -> RedisClient:
    """Return a client that never retries a command by itself: a repeated XADD would be a second entry.

    Several hosts are starting points. User and password in the URL are those of the data servers; Sentinels with their
    own take `?sentinel_username=` and `?sentinel_password=`. Other query parameters are those of redis-py.

    Raises:
        ConfigError: the URL has no allowed form; the message never shows it, because it may have a password.
    """
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }
    try:
        url = urlsplit(redis_url)
        scheme, _, kind = url.scheme.partition("+")
        if kind == "cluster" and scheme in ("redis", SECURE):
            return cluster(url, scheme, options)
        if kind == "sentinel" and scheme in ("redis", SECURE):
            return sentinel_master(url, scheme, options)
        return Redis.from_url(redis_url, **options)
    except ValueError as error:
        raise ConfigError(f"REDIS_URL is not a Redis URL; {ALLOWED}") from error


def cluster(url: SplitResult, scheme: str, options: Mapping[str, Any]) -> RedisCluster:
    """Return the client of a cluster; raise ValueError for an invalid URL."""
    from redis.asyncio.cluster import ClusterNode, RedisCluster

    if url.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has one database, 0")
    (host, port), *others = hosts_of(url, REDIS_PORT)
    plain = f"{scheme}://{userinfo(url)}{bracketed(host)}:{port}?{url.query}"
    nodes = [ClusterNode(host, port) for host, port in others]
    # One step: a slot that moved is looked up again at once, because we do not try a second time ourselves.
    return RedisCluster.from_url(plain, startup_nodes=nodes, reinitialize_steps=1, **options)


def sentinel_master(url: SplitResult, scheme: str, options: Mapping[str, Any]) -> Redis:
    """Return the client of the master that Sentinels name; raise ValueError for an invalid URL."""
    from redis.asyncio import Redis, Sentinel
    from redis.asyncio.connection import SSLConnection, parse_url

    service, _, database = url.path.strip("/").partition("/")
    if not service:
        raise ValueError("the name of the service is missing")
    if database and not database.isdecimal():
        raise ValueError("the database is a number")
    hosts = hosts_of(url, SENTINEL_PORT)
    query = dict(parse_qsl(url.query))
    own = {name: query.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    host, port = hosts[0]
    plain = f"{scheme}://{userinfo(url)}{bracketed(host)}:{port}/{database}?{urlencode(query)}"
    parsed: dict[str, Any] = {**parse_url(plain)}
    is_secure = parsed.pop("connection_class", None) is SSLConnection
    shared = {**options, "ssl": is_secure}
    sentinel_options = {**shared, **{name: value for name, value in own.items() if value is not None}}
    data = {name: value for name, value in parsed.items() if name not in ("host", "port")}
    make_sentinels: Any = Sentinel  # redis-py leaves it untyped
    sentinels = make_sentinels(hosts, sentinel_kwargs=sentinel_options)

    class Master(Redis):
        """The client of the master; closing it closes the Sentinels' clients."""

        async def aclose(self, close_connection_pool: bool | None = None) -> None:
            await super().aclose(close_connection_pool)
            for each in sentinels.sentinels:
                await each.aclose()

    master: Redis = sentinels.master_for(service, redis_class=Master, **shared, **data)
    return master


def hosts_of(url: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """Return the hosts and ports before the path, which commas separate; raise ValueError if one is missing."""
    found = []
    for part in url.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{part}")
        if not one.hostname:
            raise ValueError("a host is missing")
        found.append((one.hostname, one.port or default_port))
    return found


def userinfo(url: SplitResult) -> str:
    """Return user and password as the URL has them, with `@`; empty if there are none."""
    user, at, _ = url.netloc.rpartition("@")
    return user + at


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def same_slot(key: str, suffix: str) -> str:
    """Return a second key in the cluster slot of `key`, by the rule of hash tags."""
    start = key.find("{")
    end = key.find("}", start + 2)
    return f"{key}{suffix}" if start >= 0 and end > 0 else f"{{{key}}}{suffix}"
