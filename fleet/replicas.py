"""An expert that several engines serve alike: which of them gets a request, and who waits when all are busy.

A conversation goes to the same engine, whose prefix cache knows it: the first by rendezvous hashing that is not above
its share of the load by more than a quarter ("consistent hashing with bounded loads", Mirrokni et al. 2016). The hash
is of the conversation and the engines' addresses alone, so it survives a restart and is the same on every gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field

import aiohttp

from base.errors import BackendError, BusyError
from fleet.backend import (
    ELSEWHERE,
    RETRY_AFTER_S,
    BackendRequest,
    BackendResponse,
    ChatBackend,
    ChunkStream,
    Place,
    is_spent,
    is_too_large,
    retry_after_s,
)
from fleet.breaker import Breaker, BreakerState
from fleet.tasks import stop_task

LOAD_BOUND = 1.25
POLL_EVERY_S = 1.0
IDLE_S = 10.0
"""So long after the last request, nobody asks engines for their load."""

AT_LIMIT = 429
QUEUED_PER_PLACE = 2

MAX_METRICS_BYTES = 4 << 20
METRICS_TIMEOUT = aiohttp.ClientTimeout(total=1.0)
GAUGES = re.compile(
    rb"^(?:vllm:num_requests_(?:running|waiting)|llamacpp:requests_(?:processing|deferred)"
    rb"|sglang:num_(?:running|queue)_reqs)(?:\{[^}\n]*\})? ([0-9.e+]+)$",
    re.MULTILINE,
)
"""Requests that run and that wait, in vLLM, llama.cpp (`--metrics`) and SGLang; one line for each of its ranks."""


@dataclass
class Replica:
    """One engine of an expert. `told` is the load that it reported, and ours at that time."""

    url: str
    backend: ChatBackend
    breaker: Breaker = field(default_factory=Breaker)
    running: int = 0
    told: tuple[int, int] | None = None

    @property
    def load(self) -> int:
        """Requests that it has: those of all gateways where it tells, otherwise ours."""
        if self.told is None:
            return self.running
        theirs, ours = self.told
        return max(self.running, theirs + self.running - ours)


class Queue:
    """Places for requests, the interactive ones before those of batches, each kind in order of arrival.

    Args:
        places: how many there are now; infinite where nobody has to wait.
    """

    def __init__(self, expert: str, places: Callable[[], float]) -> None:
        self._expert, self._places = expert, places
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {False: deque(), True: deque()}  # by is_batch
        self.taken = 0

    async def enter(self, *, is_batch: bool) -> None:
        """Takes a place. Raises BusyError where too many wait already."""
        places, mine = self._places(), self._waiting[is_batch]
        if self.taken < places:
            self.taken += 1
            return
        if len(mine) >= QUEUED_PER_PLACE * places:
            raise BusyError(f"expert {self._expert} is at its limit of {places:g} requests, and {len(mine)} wait")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()
            else:
                mine.remove(place)
            raise

    def leave(self) -> None:
        """Gives a place back, to those who wait."""
        self.taken -= 1
        self.hand_out()

    def hand_out(self) -> None:
        """Gives the places that are free to those who wait."""
        for waiting in (self._waiting[False], self._waiting[True]):
            while waiting and self.taken < self._places():
                place = waiting.popleft()
                if not place.done():
                    self.taken += 1
                    place.set_result(None)


class ReplicatedBackend:
    """A `ChatBackend` over the engines of one expert, with a breaker for each.

    Args:
        backends: by API root.
        max_running: requests at once on each engine; None: any number.
    """

    def __init__(self, expert: str, backends: Mapping[str, ChatBackend], max_running: int | None = None) -> None:
        self._expert, self._max_running = expert, max_running
        self.replicas = [Replica(url, backend) for url, backend in backends.items()]
        self._queue = Queue(expert, self._places)
        self._poller: asyncio.Task[None] | None = None
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._asked_at_s = 0.0

    async def send(self, request: BackendRequest) -> BackendResponse:
        """Waits for a place, then asks one engine, and another where the first did nothing. Raises BackendError,
        BusyError."""
        began_s = self._asked_at_s = time.monotonic()
        self._watch()
        await self._queue.enter(is_batch=request.is_batch)
        queue_ms = (time.monotonic() - began_s) * 1e3
        tried: list[Replica] = []
        try:
            while True:
                replica = self._next(request.conversation, tried)
                tried.append(replica)
                response = await self._ask(replica, request, is_last=not self._left(tried))
                if response is not None:
                    break
        except BaseException:
            self._queue.leave()
            raise
        engine = 1 + self.replicas.index(replica)
        response.place = Place(engine, None if self._max_running is None else queue_ms)
        return response

    async def is_alive(self) -> bool:
        """Returns True when one engine answers a probe."""
        verdicts = await asyncio.gather(*(each.backend.is_alive() for each in self.replicas))
        for replica, is_alive in zip(self.replicas, verdicts, strict=True):
            replica.breaker.probed(is_alive, time.monotonic())
        self._queue.hand_out()
        return any(verdicts)

    async def aclose(self) -> None:
        await stop_task(self._poller)
        for probe in self._probes.values():
            await stop_task(probe)
        await asyncio.gather(*(each.backend.aclose() for each in self.replicas))

    def _places(self) -> float:
        if self._max_running is None:
            return math.inf
        return self._max_running * max(1, sum(each.breaker.admits for each in self.replicas))

    def _left(self, tried: Collection[Replica]) -> list[Replica]:
        """The engines that may be asked yet."""
        return [each for each in self.replicas if each.breaker.admits and each not in tried]

    def _next(self, conversation: str, tried: Collection[Replica]) -> Replica:
        """The engine that is asked next. Raises BackendError where none is left."""
        left = self._left(tried)
        if not left:
            rest_s = self._rest_s()
            if rest_s == math.inf:
                raise BackendError(f"no engine of expert {self._expert} can be reached", status=503, is_retryable=True)
            message = f"expert {self._expert} is at its rate limit"
            raise BackendError(message, status=AT_LIMIT, is_retryable=True, retry_after_s=rest_s)
        most = math.inf if self._max_running is None else self._max_running
        return chosen([each for each in left if each.running < most] or left, conversation)

    def _rest_s(self) -> float:
        """Seconds until the first engine at its rate limit has rested; infinite where none is at one."""
        now_s, limited = time.monotonic(), BreakerState.LIMITED
        rests_s = (each.breaker.rest_s(now_s) for each in self.replicas if each.breaker.state is limited)
        return min(rests_s, default=math.inf)

    async def _ask(self, replica: Replica, request: BackendRequest, *, is_last: bool) -> BackendResponse | None:
        """An engine's answer, whose end gives its place back; None where another one is to be asked instead."""
        replica.running += 1
        replica.breaker.start()
        try:
            response = await replica.backend.send(request)
            begin = await begin_of(response) if response.status == AT_LIMIT else b""
        except BackendError as error:
            self._end(replica, error)
            if error.is_retryable and not is_last:
                return None
            raise
        except BaseException as error:
            self._end(replica, error)
            raise
        fault = None if response.status < 500 else BackendError("", status=response.status)
        if response.status == AT_LIMIT and not (is_too_large(AT_LIMIT, begin) or is_spent(AT_LIMIT, begin)):
            rest_s = retry_after_s(response.headers)
            rest_s = RETRY_AFTER_S if rest_s is None else rest_s
            fault = BackendError("", status=AT_LIMIT, retry_after_s=rest_s)
            response.headers["retry-after"] = f"{min(rest_s, self._rest_s()):.3f}"
        if response.status in ELSEWHERE and not is_last:
            await response.chunks.aclose()
            self._end(replica, fault)
            return None

        def ended(error: BaseException | None) -> None:
            self._end(replica, error or fault)
            self._queue.leave()

        replica.breaker.begin()
        response.chunks = CountedChunks(response.chunks, ended, begin)
        return response

    def _end(self, replica: Replica, error: BaseException | None) -> None:
        """Tells the breaker of a request's end."""
        replica.running -= 1
        if error is None:
            replica.breaker.succeed()
        elif isinstance(error, BackendError) and error.status == AT_LIMIT:
            replica.breaker.limit(time.monotonic(), error.retry_after_s or 0.0)
        elif isinstance(error, BackendError):
            replica.breaker.fail(time.monotonic())
        else:
            replica.breaker.abandon()

    def _watch(self) -> None:
        """Begins to ask engines for their load, and to probe those whose breaker wants that."""
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name=f"load of {self._expert}")
        for replica in self.replicas:
            probe = self._probes.get(replica.url)
            if replica.breaker.wants_probe(time.monotonic()) and (probe is None or probe.done()):
                self._probes[replica.url] = asyncio.create_task(self._probe(replica))

    async def _probe(self, replica: Replica) -> None:
        replica.breaker.probed(await replica.backend.is_alive(), time.monotonic())
        self._queue.hand_out()

    async def _poll(self) -> None:
        """Notes what the engines tell of their load, while there are requests."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            while time.monotonic() - self._asked_at_s < IDLE_S:
                loads = await asyncio.gather(*(engine_load(session, each.url) for each in self.replicas))
                for replica, load in zip(self.replicas, loads, strict=True):
                    replica.told = None if load is None else (load, replica.running)
                await asyncio.sleep(POLL_EVERY_S)


async def begin_of(response: BackendResponse) -> bytes:
    """The first piece of an answer. Raises BackendError."""
    try:
        return await anext(response.chunks, b"")
    except BaseException:
        await response.chunks.aclose()
        raise


class CountedChunks:
    """An answer's pieces after its `begin`, which was read before. Their end is told once, with the error that it
    ended by."""

    def __init__(self, chunks: ChunkStream, ended: Callable[[BaseException | None], None], begin: bytes) -> None:
        self._chunks, self._begin = chunks, begin
        self._ended: Callable[[BaseException | None], None] | None = ended

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._begin:
            begin, self._begin = self._begin, b""
            return begin
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._end(None)
            raise
        except BaseException as error:
            self._end(error)
            raise

    async def aclose(self) -> None:
        """A reader that has what it wants closes before the end, which says nothing against the engine."""
        self._end(None)
        await self._chunks.aclose()

    def _end(self, error: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error)


def chosen(replicas: Collection[Replica], conversation: str) -> Replica:
    """The conversation's engine, or the next in its order that has room; without a conversation the least loaded."""
    if not conversation:
        return min(replicas, key=lambda each: each.load)
    bound = math.ceil(LOAD_BOUND * (sum(each.load for each in replicas) + 1) / len(replicas))
    ranked = sorted(replicas, key=lambda each: weight(conversation, each.url), reverse=True)
    return next((each for each in ranked if each.load < bound), ranked[0])


def weight(conversation: str, url: str) -> bytes:
    """Rank of an engine for a conversation; the highest has it (rendezvous hashing, Thaler and Ravishankar 1996)."""
    return hashlib.blake2b(f"{url}\0{conversation}".encode("utf-8", "replace"), digest_size=8).digest()


async def engine_load(session: aiohttp.ClientSession, url: str) -> int | None:
    """Requests that run or wait on the engine at an API root; None where it does not tell."""
    address = url.rstrip("/").removesuffix("/v1") + "/metrics"
    try:
        async with session.get(address, timeout=METRICS_TIMEOUT, allow_redirects=False) as response:
            text = b""
            while (
                response.status == 200 and len(text) < MAX_METRICS_BYTES and (more := await response.content.readany())
            ):
                text += more
        told = [float(value) for value in GAUGES.findall(text)]
    except (aiohttp.ClientError, OSError, ValueError):
        return None
    return int(sum(told)) if told else None
