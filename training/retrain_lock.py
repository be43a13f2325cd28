"""Lock around retraining: one process at a time over a folder of routers, across hosts where there is a Redis.

The lock in Redis expires when its holder stops renewing it, so a crash never blocks the others for long. But a lock
that expires proves nothing: its holder may pause for minutes (a paused machine, a full disk) and then continue as if
nothing had happened. So every turn gets a number that only rises, written next to the routers when the turn begins, and
a promotion is made under a file lock that compares both (fencing tokens, Kleppmann 2016).
"""

from __future__ import annotations

import asyncio
import fcntl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from base.errors import ArtifactError, RouterError
from base.redis_names import RETRAIN_TURN
from decision_log.redis_client import REDIS_ERRORS, connect

if TYPE_CHECKING:
    from redis.asyncio.lock import Lock

    from decision_log.redis_client import RedisClient

LOCK_FILE, FENCE_FILE = ".retrain.lock", ".fence"
EXPIRES_S = 60.0
CALL_TIMEOUT_S = 10.0

T = TypeVar("T")


class NoTurnError(RouterError):
    """Another process retrains now, or did a moment ago; the message says which."""


class LockLostError(RouterError):
    """Another process took its turn to retrain in the meantime, so this one may not promote."""


class LockUnreachableError(RouterError):
    """Redis cannot be asked for the lock."""


@dataclass(frozen=True)
class Fence:
    """Highest turn that ever began over one folder of routers."""

    root: Path

    def begin(self) -> int:
        """Begins a turn, which shuts out every earlier one, and returns its number.

        Raises:
            ArtifactError: the file is damaged.
        """
        with self.locked() as highest:
            (self.root / FENCE_FILE).write_text(str(highest + 1), encoding="ascii")
            return highest + 1

    @contextmanager
    def passing(self, turn: int) -> Iterator[None]:
        """Held while promoting: no other turn can begin meanwhile. Raises LockLostError when one has begun."""
        with self.locked() as highest:
            if turn != highest:
                raise LockLostError(
                    f"turn {turn} to retrain is over: turn {highest} has begun, so nothing was promoted"
                )
            yield

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the file lock; yields the number that is written in the file, 0 before the first turn."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / FENCE_FILE
        with path.open("a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            written = file.read().strip()
            if written and not written.isdecimal():
                raise ArtifactError(f"{path}: holds '{written[:20]}', not the number of a turn; delete the file")
            yield int(written or 0)


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
        """Holds a turn while the block runs. Raises NoTurnError when another process has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / LOCK_FILE).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise NoTurnError("another process on this host is retraining") from error
            fence = Fence(self.root)
            yield Turn(fence.begin(), fence, lambda: True)


@dataclass(frozen=True)
class SharedTurns:
    """Turns among all processes that use one Redis, whose routers lie in one folder."""

    root: Path
    redis_url: str
    expires_s: float = EXPIRES_S

    @contextmanager
    def take(self) -> Iterator[Turn]:
        """Holds a turn while the block runs and the lock is renewed.

        Raises:
            NoTurnError: it is another process's.
            LockUnreachableError: Redis is away.
        """
        fence = Fence(self.root)
        with RedisLock.open(self.redis_url, self.expires_s) as lock:
            lock.call(lock.acquire())
            try:
                number = fence.begin()
                with lock.renewed():
                    yield Turn(number, fence, lambda: lock.is_ours)
            finally:
                with suppress(LockUnreachableError):  # while Redis is away, the lock expires on its own
                    lock.call(lock.release())


@dataclass(frozen=True)
class RedisLock:
    """Lock of redis-py, spoken to by a thread of its own, because fitting keeps the main one busy for minutes."""

    client: RedisClient
    lock: Lock
    loop: asyncio.AbstractEventLoop
    expires_s: float

    @staticmethod
    @contextmanager
    def open(redis_url: str, expires_s: float) -> Iterator[RedisLock]:
        """Connects; nothing is locked yet. Raises ConfigError when the URL is not a Redis URL."""
        from redis.asyncio.lock import Lock

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="retrain-lock", daemon=True)
        thread.start()

        async def connected() -> RedisLock:
            client = connect(redis_url)
            lock = Lock(client, RETRAIN_TURN, timeout=expires_s, blocking=False, thread_local=False)
            return RedisLock(client, lock, loop, expires_s)

        try:
            opened = asyncio.run_coroutine_threadsafe(connected(), loop).result()
            try:
                yield opened
            finally:
                asyncio.run_coroutine_threadsafe(opened.client.aclose(), loop).result(CALL_TIMEOUT_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the lock's thread. Raises what it raises, and LockUnreachableError."""
        asked = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return asked.result(CALL_TIMEOUT_S)
        except REDIS_ERRORS as error:
            asked.cancel()
            raise LockUnreachableError(
                f"Redis cannot be asked whose turn it is to retrain ({type(error).__name__}); nothing was changed"
            ) from error

    async def acquire(self) -> None:
        """Takes the lock. Raises NoTurnError, RedisError."""
        if not await self.lock.acquire():
            raise NoTurnError("another replica is retraining")

    async def renew(self) -> bool:
        """Extends the lock's life; False when another holds it. Raises RedisError."""
        from redis.exceptions import LockError

        try:
            return await self.lock.reacquire()
        except LockError:
            return False

    @property
    def is_ours(self) -> bool:
        """Renews the lock and returns True while it is still held. A Redis that cannot be reached counts as no."""
        try:
            return self.call(self.renew())
        except LockUnreachableError:
            return False

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews the lock three times in its life while a block runs."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(self.expires_s / 3)
                with suppress(*REDIS_ERRORS):  # one renewal may fail; when all do, the turn is over
                    await self.renew()

        task = asyncio.run_coroutine_threadsafe(keep(), self.loop)
        try:
            yield
        finally:
            task.cancel()

    async def release(self) -> None:
        """Lets the next one in, unless the lock was lost. Raises RedisError."""
        if await self.renew():
            await self.lock.release()
