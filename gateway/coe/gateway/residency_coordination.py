"""Coordination of processes that share engines, in Redis: one turn at a time, reports that end with their process."""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from yarl import URL

from coe.base.errors import BackendError
from coe.base.redis_names import RESIDENCY
from coe.decision_log.redis_client import REDIS_ERRORS, connect
from coe.fleet.residency.coordination import Heard, Note, Report, View
from coe.gateway.listener import is_loopback

LEASE_S = 3.0
"""Longer than the pauses of a busy process (ours), and as long as a turn is empty when its holder was killed."""

TIMEOUT_S = 1.0
MOST_NOTES = 10_000
"""Kept while nobody has the turn."""

# KEYS: holder, turn, reports, view, notes. ARGV: this process, lease in ms, its report, its turn, its view or nothing,
# how many notes are kept at most, its notes. Answers the turn (0: another's), the view, and to the holder the notes and
# the others' reports by process, less those of processes that have been silent for a lease.
EXCHANGE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f ', now) .. ARGV[3])
for i = 7, #ARGV do redis.call('RPUSH', KEYS[5], ARGV[i]) end
redis.call('LTRIM', KEYS[5], -ARGV[6], -1)
local holder = redis.call('GET', KEYS[1])
if not holder then
  redis.call('INCR', KEYS[2])
elseif holder ~= ARGV[1] then
  return {0, redis.call('GET', KEYS[4]) or '', {}, {}}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local turn = redis.call('GET', KEYS[2])
if turn == ARGV[4] and ARGV[5] ~= '' then redis.call('SET', KEYS[4], ARGV[5]) end
local notes = redis.call('LRANGE', KEYS[5], 0, -1)
redis.call('DEL', KEYS[5])
local others = {}
local found = redis.call('HGETALL', KEYS[3])
for i = 1, #found, 2 do
  local at = string.match(found[i + 1], '^%d+')
  if now - at > tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[3], found[i])
  elseif found[i] ~= ARGV[1] then
    others[#others + 1] = found[i]
    others[#others + 1] = string.sub(found[i + 1], #at + 2)
  end
end
return {tonumber(turn), redis.call('GET', KEYS[4]) or '', notes, others}
"""

# KEYS: holder, reports. ARGV: this process.
LEAVE = """
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisCoordination:
    """A `Coordination` of those who share engines, by the names and addresses of these.

    Args:
        engines: each with its experts and its API root; those on loopback are this host's alone.
    """

    def __init__(self, redis_url: str, engines: Iterable[tuple[Sequence[str], str]], lease_s: float = LEASE_S) -> None:
        self._client = connect(redis_url, timeout_s=TIMEOUT_S)
        self._prefix = f"{RESIDENCY}:{{{scope_of(engines)}}}"
        self.me, self.lease_s = secrets.token_hex(8), lease_s

    async def exchange(self, report: Report, notes: Sequence[Note], turn: int, view: View | None) -> Heard:
        mine = [self.me, round(self.lease_s * 1000), report.model_dump_json(), turn]
        shown = "" if view is None else view.model_dump_json()
        texts = [note.model_dump_json() for note in notes]
        found = await self._ask(
            EXCHANGE, ("holder", "turn", "reports", "view", "notes"), *mine, shown, MOST_NOTES, *texts
        )
        now, seen, told, others = found
        try:
            reports = {others[i].decode(): Report.model_validate_json(others[i + 1]) for i in range(0, len(others), 2)}
            view = View.model_validate_json(seen) if seen else None
            return Heard(int(now), view, reports, [Note.model_validate_json(each) for each in told])
        except ValueError as error:
            raise BackendError("what another version of `coe` left there cannot be read", status=503) from error

    async def aclose(self) -> None:
        try:
            await self._ask(LEAVE, ("holder", "reports"), self.me)
        except BackendError:
            pass  # the lease ends by itself
        finally:
            await self._client.aclose()

    async def _ask(self, script: str, names: Sequence[str], *arguments: object) -> Any:
        keys = [f"{self._prefix}:{name}" for name in names]
        client: Any = self._client
        try:
            return await client.eval(script, len(keys), *keys, *arguments)
        except REDIS_ERRORS as error:
            raise BackendError(f"Redis cannot be asked ({type(error).__name__})", status=503) from error


def scope_of(engines: Iterable[tuple[Sequence[str], str]]) -> str:
    """A name of these engines: the same for all who know them by the same addresses, with the host where these are on
    loopback."""
    lines = []
    for experts, url in engines:
        host = f"{socket.gethostname()} " if is_loopback(URL(url).host or "") else ""
        lines.append(f"{host}{url.rstrip('/')} {' '.join(experts)}")
    return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=8).hexdigest()
