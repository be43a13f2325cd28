"""Several engines of one expert: who gets a conversation, what happens when one dies, and who waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import BusyError, ConfigError
from coe.fleet.calls.backend import BackendRequest, read_all, retry_after_s
from coe.fleet.calls.connect import build_backends
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.calls.replicas import FIRST_BACKOFF_S, LOAD_BOUND, Queue, Replica, Replicas, chosen
from coe.fleet.providers import echo
from tests.fake_vllm.command import FakeOptions
from tests.fake_vllm.engine import FakeEngine
from tests.fake_vllm.server import FakeServer
from tests.served_app import serving
from tests.small_composition import config_of
from tests.waiting import until

CONVERSATIONS = [f"conversation {number}" for number in range(300)]
HELLO = {"messages": [{"role": "user", "content": "hello there"}]}


def replicas(count: int, loads: list[int] | None = None) -> list[Replica]:
    made = [Replica(f"http://10.0.0.{number}/v1", echo.build(echo.Options())) for number in range(count)]
    for each, load in zip(made, loads or [0] * count, strict=True):
        each.running = load
    return made


def test_a_conversation_keeps_its_engine_and_loses_it_only_with_the_engine() -> None:
    three = replicas(3)
    before = {name: chosen(three, name).url for name in CONVERSATIONS}
    assert {name: chosen(replicas(3)[::-1], name).url for name in CONVERSATIONS} == before  # a restart, another gateway
    assert all(60 < count < 140 for count in Counter(before.values()).values())
    left = {name: chosen(three[:2], name).url for name in CONVERSATIONS}
    assert all(left[name] == url for name, url in before.items() if url != three[2].url)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=6), st.text(max_size=8))
def test_no_engine_gets_more_than_its_share_and_a_quarter(loads: list[int], conversation: str) -> None:
    made = replicas(len(loads), loads)
    share = (sum(loads) + 1) / len(loads)
    assert chosen(made, conversation).running <= LOAD_BOUND * share
    assert chosen(made, "").running == min(loads)


@asynccontextmanager
async def served(**options: object) -> AsyncIterator[tuple[FakeEngine, str]]:
    """A fake vLLM and its API root."""
    engine = FakeEngine(FakeOptions(model="m", served_model_name=("coder",), **options))
    async with serving(FakeServer(engine).app()) as root:
        yield engine, f"{root}/v1"


def pool_of(url: str, *, most: int | None = None) -> ExpertPool:
    entry = {"engine": "vllm", "model": "coder", "url": url, "max_concurrency": most}
    return ExpertPool(build_backends(config_of({"coder": entry}), {}, {}, {}))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"engine": "vllm", "url": []}, "url: an empty list"),
        ({"engine": "litellm", "url": ["http://a/v1", "http://b/v1"]}, "allowed with several: vllm, openai"),
        ({"engine": "vllm", "url": ["http://a/v1", "http://a/v1"]}, "names an address twice"),
        ({"engine": "openai", "url": "http://a/v1", "max_concurrency": 0}, "max_concurrency"),
        ({"engine": "vllm", "url": "http://a/v1", "replicas": 2}, "replicas: of engine vllm without a `url` alone"),
    ],
)
def test_engines_that_cannot_be_are_refused(entry: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config_of({"coder": {"model": "m", **entry}})


async def ask(pool: ExpertPool, *, is_batch: bool = False) -> None:
    call = await pool.call("coder", is_batch=is_batch)
    try:
        response = await call.send(BackendRequest(HELLO))
        assert response.status == 200
        await read_all(response.chunks, 10_000)
    finally:
        call.succeeded()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("86400", 3600.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        *((said, None) for said in ("soon", "-1", "nan", "", "\u0663", "1" * 400)),
    ],
)
def test_retry_after_is_a_number_or_a_date(said: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": said}) == seconds


async def test_interactive_requests_go_before_a_batch_and_too_many_are_refused() -> None:
    async with served(tokens_per_s=10.0, answer_tokens=2) as (engine, url):
        pool, ended = pool_of(url, most=1), list[str]()

        async def note(name: str, *, is_batch: bool = False) -> None:
            await ask(pool, is_batch=is_batch)
            ended.append(name)

        try:
            first = asyncio.create_task(note("first"))
            await until(lambda: engine.running)
            batch = [asyncio.create_task(note(f"batch {number}", is_batch=True)) for number in range(2)]
            people = [asyncio.create_task(note(f"person {number}")) for number in range(2)]
            gone = asyncio.create_task(note("gone"))
            await asyncio.sleep(0)
            with suppress(asyncio.CancelledError, BusyError):
                gone.cancel()
                await gone
            with pytest.raises(BusyError, match="expert coder is at its limit of 1 requests, and 2 wait"):
                await ask(pool)
            await asyncio.gather(first, *batch, *people)
            assert ended == ["first", "person 0", "person 1", "batch 0", "batch 1"]
            assert pool.replicas("coder").queue.taken == 0
        finally:
            await pool.aclose()


async def test_who_leaves_the_queue_as_a_place_becomes_free_leaves_it_to_the_next() -> None:
    queue = Queue("coder", lambda: 1)
    await queue.enter(is_batch=False)
    gone, following = (asyncio.create_task(queue.enter(is_batch=False)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    queue.leave()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await following
    assert queue.taken == 1


async def test_who_had_a_place_of_an_engine_that_failed_goes_before_all_who_wait() -> None:
    queue, served = Queue("coder", lambda: 1), list[str]()

    async def wait(name: str, **options: bool) -> None:
        await queue.enter(**{"is_batch": False, **options})
        served.append(name)
        queue.leave()

    await queue.enter(is_batch=False)
    waiting = [asyncio.create_task(wait(name)) for name in ("first", "second")]
    again = asyncio.create_task(wait("again", is_batch=True, is_again=True))
    await asyncio.sleep(0)
    queue.leave()
    await asyncio.gather(again, *waiting)
    assert served == ["again", "first", "second"]


async def test_who_waited_for_an_engine_that_asked_for_a_rest_meanwhile_is_not_sent_to_it() -> None:
    replicas = Replicas("coder", {"": echo.build(echo.Options())}, 1)
    pool = ExpertPool({"coder": replicas})
    first = await pool.call("coder")
    waiting = [asyncio.create_task(pool.call("coder")) for _ in range(2)]
    await asyncio.sleep(0)
    first.cool_down(30.0)
    for each in waiting:
        with pytest.raises(BusyError, match="expert coder takes requests now"):
            await each
    assert replicas.queue is not None
    assert replicas.queue.taken == 0


async def test_an_engine_that_comes_back_gets_one_of_those_who_wait_and_more_once_its_answer_begins() -> None:
    both = Replicas("coder", {url: echo.build(echo.Options()) for url in ("http://a/v1", "http://b/v1")}, 2)
    pool, (well, back) = ExpertPool({"coder": both}), both.all
    back.breaker.open(pool.clock() - FIRST_BACKOFF_S)
    running = [await pool.call("coder") for _ in range(2)]
    waiting = [asyncio.create_task(pool.call("coder")) for _ in range(3)]
    await asyncio.sleep(0)
    await pool.probe_due()
    trial = await waiting[0]
    await asyncio.sleep(0)
    assert [each.running for each in (well, back)] == [2, 1]
    trial.began()
    running.append(await waiting[1])
    assert [each.running for each in (well, back)] == [2, 2]
    for each in (trial, *running):
        each.succeeded()
    (await waiting[2]).succeeded()
    assert both.queue is not None
    assert (both.queue.taken, well.running, back.running) == (0, 0, 0)
    await pool.aclose()
