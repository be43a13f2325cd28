"""Limits on the requests that run at once, and on the bodies in memory, of all clients together and of each."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from coe.gateway.http_errors import ApiError, not_now

SMALL_BODY_BYTES = 64 * 1024
"""The server reads so much of a body ahead anyway. Below it only `max_bodies` counts, so that a short request is
served while others send large ones."""

MAX_LARGE = 32
"""Larger bodies that one client may be sending at once."""

CLIENT_SHARE = 2
"""One client may take up to one part in so many of all bytes and of all bodies."""

COPIES = 4
"""A body is there as it came, decoded, and encoded for its expert, once more on the way there (measured: 4.3)."""

QUEUED_PER_RUNNING = 4  # one waits for each four that run: a queue that drains in a quarter of an answer's time (ours)

PATIENCE_S = 5.0
SLOW_BYTES_PER_S = 64 * 1024  # half a megabit: slower ones make room for others when places are short


class ConcurrencyLimit:
    """A limit on the requests that run at once, a short queue behind it, and an immediate refusal of the rest. Use as
    `async with admission:`."""

    def __init__(self, max_running: int) -> None:
        self._max_running, self._max_queued = max_running, max(1, max_running // QUEUED_PER_RUNNING)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.running = 0

    async def __aenter__(self) -> None:
        """Takes a place, or waits for one in order of arrival. Raises ApiError: 429, the queue is full."""
        if self.running < self._max_running:
            self.running += 1
            return
        if len(self._waiting) >= self._max_queued:
            message = f"the gateway is at its limit of {self._max_running} requests at once; try again later"
            raise not_now(message, "overloaded", 429)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()
            else:
                self._waiting.remove(place)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        """Hands the place to the first that waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1


class BodyLimits:
    """The room that the `Admission` of each request with a body takes.

    Args:
        max_bytes: for all bodies larger than `SMALL_BODY_BYTES`, from their first byte to the end of their answer.
        max_bodies: bodies of any size that are being sent at once.
    """

    def __init__(self, max_bytes: int, max_bodies: int) -> None:
        self._max_bytes, self._max_bodies = max_bytes, max_bodies
        self.held_bytes = 0
        self._held: Counter[str] = Counter()  # bytes, by client
        self._arriving: dict[Admission, None] = {}  # in order of arrival
        self._sending: Counter[tuple[str, bool]] = Counter()  # of those, by client and whether they are large

    def begin(self, admission: Admission) -> None:
        """Raises ApiError 429 or 503."""
        share = max(1, self._max_bodies // CLIENT_SHARE)
        for client in admission.clients:
            if self._sending[client, False] + self._sending[client, True] >= share and not self._cut_slow(client):
                raise too_many_of(client, f"sends {share} bodies at once")
        if len(self._arriving) >= self._max_bodies and not self._cut_slow():
            raise too_many(f"{self._max_bodies} bodies that are being sent")
        self._arriving[admission] = None
        for client in admission.clients:
            self._sending[client, admission.is_large] += 1

    def grow(self, admission: Admission, size: int) -> None:
        """Raises ApiError 429 or 503."""
        more, share = size - admission.held_bytes, self._max_bytes // CLIENT_SHARE
        for client in admission.clients:
            if (
                not admission.is_large
                and self._sending[client, True] >= MAX_LARGE
                and not self._cut_slow(client, large_only=True)
            ):
                raise too_many_of(client, f"sends {MAX_LARGE} large bodies at once")
            while self._held[client] + more > share:
                if not self._cut_slow(client, large_only=True):
                    raise too_many_of(client, f"has bodies of {share} bytes in work")
        while self.held_bytes + more > self._max_bytes:
            if not self._cut_slow(large_only=True):
                raise too_many(f"{self._max_bytes} bytes of bodies in work")
        if admission in self._arriving and not admission.is_large:
            self._sending.subtract((client, False) for client in admission.clients)
            self._sending.update((client, True) for client in admission.clients)
        self._count(admission, more)

    def has_arrived(self, admission: Admission) -> None:
        if admission in self._arriving:
            del self._arriving[admission]
            for client in admission.clients:
                self._sending[client, admission.is_large] -= 1
                if not self._sending[client, admission.is_large]:
                    del self._sending[client, admission.is_large]

    def release(self, admission: Admission) -> None:
        self.has_arrived(admission)
        if admission.is_large:
            self._count(admission, -admission.held_bytes)

    def _count(self, admission: Admission, more: int) -> None:
        admission.held_bytes += more
        self.held_bytes += more
        for client in admission.clients:
            self._held[client] += more
            if not self._held[client]:
                del self._held[client]

    def _cut_slow(self, client: str | None = None, *, large_only: bool = False) -> bool:
        """Ends the oldest body that arrives too slowly, of one client or of all; False when there is none."""
        for each in self._arriving:
            if each.is_slow and (client is None or client in each.clients) and (each.is_large or not large_only):
                each.cut()
                return True
        return False


class Admission:
    """One request's place: `with Admission(limits, address) as admission`, held until its answer has ended.

    Args:
        clients: what its sender is known by: `address:...`, `key:...`.
        is_here: all of the body has come already.
    """

    def __init__(self, limits: BodyLimits, *clients: str, is_here: bool = False) -> None:
        self.clients, self.is_here = clients, is_here
        self.held_bytes = 0  # 0: not a large body
        self.received_bytes = 0
        self._limits = limits
        self._began_at_s = 0.0
        self._deadline: asyncio.Timeout | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._limits.release(self)

    @property
    def is_large(self) -> bool:
        return self.held_bytes > 0

    @property
    def is_slow(self) -> bool:
        elapsed_s = asyncio.get_running_loop().time() - self._began_at_s
        return elapsed_s > PATIENCE_S and self.received_bytes < elapsed_s * SLOW_BYTES_PER_S

    @asynccontextmanager
    async def arrival(self, timeout_s: float) -> AsyncIterator[None]:
        """Around the reading of the body, whose speed is measured from here.

        Raises:
            ApiError: 408 it took too long, or too long for the room that it took; 429 or 503 there is no room.
        """
        self._limits.begin(self)
        self._began_at_s = asyncio.get_running_loop().time()
        self._deadline = asyncio.timeout(timeout_s)
        try:
            async with self._deadline:
                yield
        except TimeoutError as late:
            raise too_slow(timeout_s) from late
        finally:
            self._limits.has_arrived(self)

    def expect(self, size: int) -> None:
        """Takes room for a body of that size and its copies. Raises ApiError 429 or 503 when there is none."""
        if size > SMALL_BODY_BYTES:
            self.take(size * COPIES)

    def take(self, size: int) -> None:
        """Takes that many bytes in all. Raises ApiError 429 or 503 when they are not there."""
        if size > self.held_bytes:
            self._limits.grow(self, size)

    def cut(self) -> None:
        """Ends the reading as if its time were over; its room is free at once."""
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(0.0)
        self._limits.release(self)


def senders(client: Sequence[Any] | None, key_id: str | None) -> list[str]:
    """The names that the sender of a request is known by: the address of ASGI's `client`, and its key."""
    known = []
    if client:
        known.append(f"address:{network_of(client[0])}")
    if key_id is not None:
        known.append(f"key:{key_id}")
    return known


def network_of(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one customer has all of it. What is neither, as a program on this
    machine may write it into `x-forwarded-for`, stays as it is."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address


def too_slow(timeout_s: float) -> ApiError:
    return ApiError(
        f"the body did not arrive within {timeout_s:g} s, or too slowly while others waited",
        status=408,
        code="request_timeout",
    )


def too_many_of(client: str, what: str) -> ApiError:
    kind = client.partition(":")[0]
    return not_now(f"this {kind} {what}, which is its limit; try again later", "too_many_bodies", 429)


def too_many(what: str) -> ApiError:
    return not_now(f"the gateway is at its limit of {what}; try again later", "overloaded")
