"""Bodies of clients that are held at once, and clients that are served meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import ConfigError
from coe.gateway.http import admission
from coe.gateway.http.admission import COPIES, SMALL_BODY_BYTES, Admission, BodyLimits, senders
from coe.gateway.http_errors import ApiError
from coe.router.capabilities import Capabilities
from coe.router.config.composition import parse_config
from tests.gateway.running import Running, config_of, faulty, running
from tests.gateway.small_router import EXPERTS, small_router
from tests.waiting import DEADLINE_S, until

KEY, OTHER_KEY = "canary-7f3a9c51e2b84d06", "other-0b1c2d3e4f5a6978"
LARGE = 200_000
ROOM = 8 * 1024 * 1024


def body_of(size: int) -> bytes:
    body = {"model": "ruby", "messages": [{"role": "user", "content": "x" * size}]}
    return json.dumps(body).encode()


def head_of(length: int, key: str | None = None, path: str = "/v1/chat/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {length}"]
    lines += [] if key is None else [f"authorization: Bearer {key}"]
    return "\r\n".join((*lines, "", "")).encode()


@asynccontextmanager
async def hanging(
    gateway: Running, count: int, size: int = LARGE, key: str | None = None
) -> AsyncIterator[list[bytes]]:
    """Clients that send half a body and wait. Gives the first lines of those that were refused."""
    pairs = [await asyncio.open_connection("127.0.0.1", gateway.gateway.port) for _ in range(count)]
    lines: list[bytes] = []
    readers = [asyncio.create_task(first_line(reader, lines)) for reader, _ in pairs]
    try:
        for _, writer in pairs:
            writer.write(head_of(size, key) + b"x" * (size // 2))
        yield lines
    finally:
        for task in readers:
            task.cancel()
        for _, writer in pairs:
            writer.close()


async def first_line(reader: asyncio.StreamReader, lines: list[bytes]) -> None:
    lines.append(await reader.readuntil(b"\r\n\r\n"))


async def test_300_slow_large_bodies_leave_room_for_everybody_else() -> None:
    async with running(max_body_bytes=ROOM // 8, max_bytes_in_flight=ROOM) as gateway:
        held = ROOM // 2 // (LARGE * COPIES)
        async with hanging(gateway, 300) as refused:
            await until(lambda: len(refused) == 300 - held)
            assert all(line.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1\r\n" in line for line in refused)
            assert gateway.parts.body_limits.held_bytes == held * LARGE * COPIES
            for _ in range(20):
                async with gateway.chat("red") as answer:
                    assert answer.status == 200
        await until(lambda: gateway.parts.body_limits.held_bytes == 0)
        assert len(gateway.parts.body_limits._arriving) == 0
        async with gateway.chat("x" * LARGE, model="ruby") as answer:
            assert (await answer.json())["error"]["code"] == "context_length_exceeded"  # it was read


async def test_a_slow_body_makes_room_once_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE_S", 0.0)
    monkeypatch.setattr(admission, "SLOW_BYTES_PER_S", 1e9)
    monkeypatch.setattr(admission, "MAX_LARGE", 2)
    async with running() as gateway, hanging(gateway, 2) as cut:
        await until(lambda: len(gateway.parts.body_limits._arriving) == 2)
        async with gateway.chat("x" * LARGE, model="ruby") as answer:
            assert (await answer.json())["error"]["code"] == "context_length_exceeded"
        await until(lambda: len(cut) == 1)
        assert cut[0].startswith(b"HTTP/1.1 408 ")
        assert len(gateway.parts.body_limits._arriving) == 1


async def test_one_key_does_not_take_the_room_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_LARGE", 3)
    async with running(keys=[KEY, OTHER_KEY]) as gateway:
        gateway.parts.body_limits._sending["address:127.0.0.1", True] = -100  # as from many addresses
        async with hanging(gateway, 5, key=KEY) as refused:
            await until(lambda: len(refused) == 2)
            assert all(b" 429 " in line for line in refused)
            for key, status in ((KEY, 429), (OTHER_KEY, 400)):
                async with gateway.chat(
                    "x" * LARGE, model="ruby", headers={"authorization": f"Bearer {key}"}
                ) as answer:
                    assert answer.status == status
                    assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}


async def test_a_body_of_unknown_length_takes_room_as_it_comes() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000

    async with running(max_body_bytes=ROOM // 8, max_bytes_in_flight=ROOM) as gateway:
        with Admission(gateway.parts.body_limits, "address:127.0.0.1") as other:
            other.take(ROOM // 2 - 2 * LARGE)
            async with gateway.client.post(f"{gateway.root}/v1/route", data=endless()) as answer:
                error = (await answer.json())["error"]
            assert (answer.status, error["code"], error["type"]) == (429, "too_many_bodies", "rate_limit_error")
        assert gateway.parts.body_limits.held_bytes == 0


async def test_a_body_is_counted_until_its_answer_has_ended() -> None:
    router = small_router(capabilities={name: Capabilities(context_tokens=10**9) for name in EXPERTS})
    async with faulty("paced", router=router) as (gateway, upstream):
        async with gateway.chat("red " * LARGE, stream=True) as answer:
            assert answer.status == 200
            assert gateway.parts.body_limits.held_bytes > LARGE * COPIES
            assert len(gateway.parts.body_limits._arriving) == 0
            async with gateway.client.get(f"{gateway.root}/metrics") as metrics:
                line = next(each for each in (await metrics.text()).splitlines() if each.startswith("coe_body_bytes "))
                assert float(line.split()[1]) == gateway.parts.body_limits.held_bytes
            upstream.gate.set()
            await answer.read()
        await until(lambda: gateway.parts.body_limits.held_bytes == 0)


@pytest.mark.parametrize("path", ["/v1/route", "/v1/feedback", "/v1/embeddings"])
async def test_every_path_that_takes_a_body_counts(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_LARGE", 1)
    async with running() as gateway, hanging(gateway, 1):
        await until(lambda: len(gateway.parts.body_limits._arriving) == 1)
        async with gateway.client.post(gateway.root + path, data=body_of(LARGE)) as answer:
            assert answer.status == 429


async def test_small_bodies_that_do_not_come_take_half_of_all_connections_at_most() -> None:
    async with running(max_connections=20) as gateway, hanging(gateway, 12, size=1000) as refused:
        await until(lambda: len(refused) == 2)
        assert len(gateway.parts.body_limits._arriving) == 10
        assert all(b" 429 " in line for line in refused)
        async with gateway.client.get(f"{gateway.root}/healthz") as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("address", "key_id", "known"),
    [
        ("10.0.0.7", None, ["address:10.0.0.7"]),
        ("10.0.0.7", "key-1", ["address:10.0.0.7", "key:key-1"]),
        ("2001:db8:1:2:3:4:5:6", None, ["address:2001:db8:1:2::/64"]),
        ("a:b:c", None, ["address:a:b:c"]),
        ("2001:db8:1:2:ffff::1%eth0", None, ["address:2001:db8:1:2::/64"]),
    ],
)
def test_who_a_sender_is(address: str, key_id: str | None, known: list[str]) -> None:
    """One customer has a whole /64 of IPv6."""
    assert senders((address, 1), key_id) == known


def test_room_for_less_than_one_body_is_refused_in_the_file() -> None:
    values = config_of().model_dump(mode="json")
    with pytest.raises(ConfigError, match="max_bytes_in_flight"):
        parse_config({**values, "gateway": {"max_bytes_in_flight": ROOM, "max_body_bytes": ROOM}})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["address:1", "address:2"]),
            st.sampled_from([None, "key:a", "key:b"]),
            st.integers(0, 40) | st.integers(SMALL_BODY_BYTES - 5, 4 * SMALL_BODY_BYTES),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
async def test_no_order_of_requests_passes_the_limits_and_all_is_given_back(
    requests: list[tuple[str, str | None, int, int]],
) -> None:
    max_bytes = 12 * SMALL_BODY_BYTES * COPIES
    whole = BodyLimits(max_bytes, 12)
    waiting: list[ExitStack] = []
    for address, key, size, leaves in requests:
        stack = ExitStack()
        place = stack.enter_context(Admission(whole, *(each for each in (address, key) if each is not None)))
        try:
            place.expect(size)
            whole.begin(place)
            waiting.append(stack)
        except ApiError:
            stack.close()
        claims = list(whole._arriving)
        assert whole.held_bytes == sum(each.held_bytes for each in claims) <= max_bytes
        assert len(whole._arriving) <= 12
        for client in ("address:1", "address:2", "key:a", "key:b"):
            of_client = [each for each in claims if client in each.clients]
            assert sum(each.held_bytes for each in of_client) <= max_bytes // 2
            assert sum(each.is_large for each in of_client) <= admission.MAX_LARGE
            assert len(of_client) <= 6
        for _ in range(min(leaves, len(waiting))):
            waiting.pop(0).close()
    for stack in waiting:
        stack.close()
    assert (whole.held_bytes, len(whole._arriving), dict(whole._held), dict(whole._sending)) == (0, 0, {}, {})


async def test_all_clients_together_have_a_limit_of_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE_S", 1e9)  # nobody makes room
    half = ROOM // 2
    bytes_full, bodies_full = BodyLimits(ROOM, 8), BodyLimits(ROOM, 4)
    for client in ("address:1", "address:2"):
        Admission(bytes_full, client).take(half)
        for _ in range(2):
            bodies_full.begin(Admission(bodies_full, client))
    with pytest.raises(ApiError, match=f"limit of {ROOM} bytes") as of_bytes:
        Admission(bytes_full, "address:3").take(1)
    with pytest.raises(ApiError, match="limit of 4 bodies") as of_bodies:
        bodies_full.begin(Admission(bodies_full, "address:3"))
    for refused in (of_bytes.value, of_bodies.value):
        assert (refused.status, refused.code, refused.headers) == (503, "overloaded", {"retry-after": "1"})


async def test_what_is_short_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_LARGE", 1)
    full = BodyLimits(ROOM, 8)
    Admission(full, "address:1").take(ROOM // 2)
    Admission(full, "address:1").expect(SMALL_BODY_BYTES)
    with pytest.raises(ApiError):
        Admission(full, "address:1").expect(SMALL_BODY_BYTES + 1)


@pytest.mark.parametrize(
    ("beyond_s", "received", "is_slow"),
    [(-1.0, 0, False), (1.0, 0, True), (1.0, 5 * 65536, True), (1.0, 1000 * 65536, False)],
)
async def test_a_body_is_slow_by_its_rate_and_not_at_once(beyond_s: float, received: int, is_slow: bool) -> None:
    place = Admission(BodyLimits(ROOM, 8), "address:1")
    place._began_at_s = asyncio.get_running_loop().time() - admission.PATIENCE_S - beyond_s
    place.received_bytes = received
    assert place.is_slow is is_slow


async def test_whoever_is_cut_says_that_it_was_too_slow() -> None:
    whole = BodyLimits(ROOM, 8)
    with Admission(whole, "address:1") as place:
        with pytest.raises(ApiError, match="too slowly") as refused:
            await cut_while_arriving(place)
        assert refused.value.status == 408
    assert (whole.held_bytes, len(whole._arriving), dict(whole._sending)) == (0, 0, {})


async def cut_while_arriving(place: Admission) -> None:
    async with place.arrival(30.0):
        place.cut()
        await asyncio.wait_for(asyncio.Event().wait(), DEADLINE_S)
