"""Whose turn it is to retrain: one process at a time over a folder of routers, across hosts where there is a Redis.

The lock in Redis expires when its holder stops renewing it, so a crash never blocks the others for long; the fence
beside the routers (training.fence) makes sure that a holder who lost it cannot promote.
"""

from __future__ import annotations

import asyncio
import fcntl
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decision_log.redis_client import REDIS_ERRORS, connect, same_slot
from router.errors import RouterError
from training.fence import Fence, LockLostError

if TYPE_CHECKING:
    from decision_log.redis_client import RedisClient

LOCK_KEY = "coe:retrain"
LOCK_FILE = ".retrain.lock"
EXPIRES_S = 60.0
CALL_TIMEOUT_S = 10.0
BUSY, RECENT = 0, -1

TAKE = """
local now = redis.call('TIME')
local finished = tonumber(redis.call('GET', KEYS[3]) or '0')
if tonumber(ARGV[4]) > 0 and tonumber(now[1]) - finished < tonumber(ARGV[4]) then return -1 end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
local turn = redis.call('INCR', KEYS[2])
if turn <= tonumber(ARGV[3]) then turn = tonumber(ARGV[3]) + 1; redis.call('SET', KEYS[2], turn) end
return turn
"""
"""KEYS: lock, last turn, when the last one finished. ARGV: owner, expiry in ms, highest turn of the fence (a Redis that
lost its data starts to count again), seconds that must have passed since the last one finished."""

RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"

GIVE_BACK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then redis.call('SET', KEYS[3], redis.call('TIME')[1]) end
return redis.call('DEL', KEYS[1])
"""


class NoTurnError(RouterError):
    """Somebody else retrains now, or did a moment ago; the message says which."""


@dataclass(frozen=True)
class Turn:
    """One turn; `is_ours` asks whether the lock is still held."""

    number: int
    fence: Fence
    is_ours: Callable[[], bool]

    @contextmanager
    def promotion(self) -> Iterator[None]:
        """Held around a promotion. Raises LockLostError when the turn is over."""
        if not self.is_ours():
            raise LockLostError(f"turn {self.number} to retrain is over: its lock expired, so nothing was promoted")
        with self.fence.passing(self.number):
            yield


@dataclass(frozen=True)
class LocalTurns:
    """Turns among the processes of one host that use the same folder of routers."""

    root: Path

    @contextmanager
    def take(self) -> Iterator[Turn]:
        """A turn, for as long as the block runs. Raises NoTurnError when another process has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / LOCK_FILE).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise NoTurnError("another process on this host is retraining") from error
            fence = Fence(self.root)
            number = fence.highest() + 1
            fence.begin(number)
            yield Turn(number, fence, lambda: True)


@dataclass(frozen=True)
class SharedTurns:
    """Turns among all processes that use one Redis, whose routers lie in one folder.

    Args:
        min_pause_s: seconds since anybody's last turn, so that of several replicas on the same schedule one retrains.
    """

    root: Path
    redis_url: str
    min_pause_s: float = 0.0
    expires_s: float = EXPIRES_S

    @contextmanager
    def take(self) -> Iterator[Turn]:
        """A turn, for as long as the block runs and the lock is renewed.

        Raises:
            NoTurnError: it is somebody else's, or the last one was a moment ago.
            TurnsUnreachableError: Redis is away.
        """
        fence = Fence(self.root)
        with RedisLock.open(self.redis_url, self.expires_s) as lock:
            number = lock.take(fence.highest(), self.min_pause_s)
            is_done = False
            try:
                fence.begin(number)
                with lock.renewed():
                    yield Turn(number, fence, lock.renew)
                    is_done = True
            finally:
                lock.give_back(is_done=is_done)


class TurnsUnreachableError(RouterError):
    """Redis cannot be asked whose turn it is."""


@dataclass(frozen=True)
class RedisLock:
    """The lock in Redis, spoken to by a thread of its own, because fitting keeps the main one busy for minutes."""

    client: RedisClient
    loop: asyncio.AbstractEventLoop
    owner: str
    expires_ms: int

    @staticmethod
    @contextmanager
    def open(redis_url: str, expires_s: float) -> Iterator[RedisLock]:
        """Raises ConfigError when the URL is none of Redis."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="retrain-lock", daemon=True)
        thread.start()

        async def opened() -> RedisClient:
            return connect(redis_url)

        try:
            client = asyncio.run_coroutine_threadsafe(opened(), loop).result()
            try:
                yield RedisLock(client, loop, secrets.token_hex(16), round(1000 * expires_s))
            finally:
                asyncio.run_coroutine_threadsafe(client.aclose(), loop).result(CALL_TIMEOUT_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def script(self, source: str, *arguments: str | int) -> int:
        keys = (LOCK_KEY, same_slot(LOCK_KEY, ":turn"), same_slot(LOCK_KEY, ":finished"))
        answer: Any = self.client.eval(source, len(keys), *keys, self.owner, *arguments)
        return int(await answer)

    def call(self, source: str, *arguments: str | int) -> int:
        """Runs a script. Raises TurnsUnreachableError."""
        asked = asyncio.run_coroutine_threadsafe(self.script(source, *arguments), self.loop)
        try:
            return asked.result(CALL_TIMEOUT_S)
        except (*REDIS_ERRORS, TimeoutError) as error:
            asked.cancel()
            raise TurnsUnreachableError(
                f"Redis cannot be asked whose turn it is to retrain ({type(error).__name__}); nothing was changed"
            ) from error

    def take(self, highest: int, min_pause_s: float) -> int:
        """The number of the turn. Raises NoTurnError, TurnsUnreachableError."""
        number = self.call(TAKE, self.expires_ms, highest, round(min_pause_s))
        if number == RECENT:
            raise NoTurnError("another replica has just retrained")
        if number == BUSY:
            raise NoTurnError("another replica is retraining")
        return number

    def renew(self) -> bool:
        """Whether the lock is still ours; if so it lives on. A Redis that is away says nothing, which counts as no."""
        try:
            return bool(self.call(RENEW, self.expires_ms))
        except TurnsUnreachableError:
            return False

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews the lock three times in its life while a block runs."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(self.expires_ms / 3000)
                with suppress(*REDIS_ERRORS):  # one renewal may fail; when all do, the turn is over
                    await self.script(RENEW, self.expires_ms)

        task = asyncio.run_coroutine_threadsafe(keep(), self.loop)
        try:
            yield
        finally:
            task.cancel()

    def give_back(self, *, is_done: bool) -> None:
        """Lets the next one in; what Redis is not there to hear expires by itself."""
        with suppress(TurnsUnreachableError):
            self.call(GIVE_BACK, int(is_done))
