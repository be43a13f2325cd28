"""Fields that an expert refuses: which are left out, for whom, and what stays refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import orjson
import pytest

from coe.fleet.calls.backend import BackendRequest, BackendResponse, Unconnected, chunks_of, read_all
from coe.fleet.calls.pool import ExpertPool

Body = Mapping[str, object]
HINTS = {"metadata": {}, "temperature": 0.5, "user": "u"}


class Refusing(Unconnected):
    """An expert that answers unless `refuse` gives the text of a refusal. `asked` has the names of each request."""

    def __init__(self, refuse: Callable[[Body], str | None]) -> None:
        self._refuse = refuse
        self.asked: list[list[str]] = []

    async def send(self, request: BackendRequest) -> BackendResponse:
        self.asked.append(list(request.body))
        refusal = self._refuse(request.body)
        return BackendResponse(200 if refusal is None else 400, chunks_of([(refusal or "{}").encode()]))


async def statuses(expert: Refusing, *bodies: Body, path: str = "chat/completions") -> list[int]:
    call = await ExpertPool({"ruby": expert}).call("ruby")
    return [(await call.send(BackendRequest(body, path=path))).status for body in bodies]


def without_metadata(body: Body) -> str | None:
    """As servers in Rust that know no other fields say it."""
    return "unknown field `metadata`, expected one of `messages`, `temperature`, `user`" if "metadata" in body else None


def with_number(body: Body) -> str | None:
    """As FastAPI says what is of a wrong type, with what it got."""
    value = body.get("temperature", 0)
    fault = {"loc": ["body", "temperature"], "msg": "Input should be a valid number", "input": value}
    return None if isinstance(value, float | int) else json.dumps({"detail": [fault]})


async def test_fields_that_a_refusal_lists_as_known_are_kept_and_what_helped_outlives_a_swap() -> None:
    expert = Refusing(without_metadata)
    pool = ExpertPool({"ruby": expert})
    for each in (pool, pool.changed({"ruby": expert})):
        assert (await (await each.call("ruby")).send(BackendRequest(HINTS))).status == 200
    kept = ["temperature", "user"]
    assert expert.asked == [list(HINTS), kept, kept]


async def test_words_of_a_client_that_a_refusal_repeats_change_nothing_for_others() -> None:
    expert = Refusing(with_number)
    assert await statuses(expert, {"temperature": "Not Permitted"}, {"temperature": 0.5}) == [200, 200]
    assert expert.asked[-1] == ["temperature"]


@pytest.mark.parametrize("wrong", [{"temperature": "warm"}, {"temperature": "warm", "user": "u"}])
async def test_a_fault_of_one_request_stays_a_refusal(wrong: Body) -> None:
    expert = Refusing(with_number)
    assert await statuses(expert, wrong) == [400]
    assert len(expert.asked) == 1


async def test_an_expert_that_stores_unless_told_is_always_told_and_wires_are_told_apart() -> None:
    expert = Refusing(lambda body: "store is not supported" if "store" in body else None)
    bodies = [{"store": False}]
    assert await statuses(expert, *bodies, path="responses") == [400]
    assert await statuses(expert, *bodies) == [200]
    call = await ExpertPool({"ruby": expert}).call("ruby")
    for path in ("chat/completions", "responses"):
        await call.send(BackendRequest(bodies[0], path=path))
    assert expert.asked[-3:] == [["store"], [], ["store"]]


async def test_a_field_of_ours_is_left_out_after_a_refusal_that_names_none() -> None:
    expert = Refusing(lambda body: "bad request" if "stream_options" in body else None)
    call = await ExpertPool({"ruby": expert}).call("ruby")
    request = BackendRequest({"stream_options": {"include_usage": True}})
    assert (await call.send(request)).status == 400
    for _ in range(2):
        response = await call.send(request, ("stream_options",))
        assert (response.status, orjson.loads(await read_all(response.chunks, 9))) == (200, {})
    assert expert.asked == [["stream_options"], ["stream_options"], [], []]


def openai_error(message: str, param: str, code: str | None) -> str:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}})


async def test_a_refusal_is_forgotten_after_an_hour() -> None:
    expert, now = Refusing(without_metadata), 0.0
    call = await ExpertPool({"ruby": expert}, clock=lambda: now).call("ruby")
    for at_s, asked in ((0.0, 2), (3599.0, 3), (3600.0, 5)):
        now = at_s
        assert (await call.send(BackendRequest(HINTS))).status == 200
        assert len(expert.asked) == asked


@pytest.mark.parametrize(
    ("refused", "taken", "refusal"),
    [
        (
            {"metadata": {}},
            {"metadata": {}, "store": True},
            openai_error("The 'metadata' parameter is only allowed when 'store' is enabled.", "metadata", None),
        ),
        (
            {"temperature": 0, "reasoning_effort": "high"},
            {"temperature": 0, "reasoning_effort": "none"},
            openai_error("'temperature' cannot be used here", "temperature", "unsupported_parameter"),
        ),
        (
            {"service_tier": "priority"},
            {"service_tier": "flex"},
            openai_error("service_tier does not take 'priority'", "service_tier", "unsupported_value"),
        ),
    ],
)
async def test_what_depends_on_another_field_is_left_out_only_where_that_is_the_same(
    refused: Body, taken: Body, refusal: str
) -> None:
    expert = Refusing(lambda body: refusal if body == refused else None)
    assert await statuses(expert, refused, refused, taken) == [200, 200, 200]
    first = next(iter(refused))
    assert [first in asked for asked in expert.asked] == [True, False, False, True]


async def test_a_code_says_it_in_any_language_and_whatever_the_client_wrote() -> None:
    refusal = openai_error("temperature und user: so nicht", "user", "unsupported_parameter")
    expert, body = Refusing(lambda body: refusal if "user" in body else None), {"temperature": 0, "user": "unknown"}
    assert await statuses(expert, body, body) == [200, 200]
    assert expert.asked == [["temperature", "user"], ["temperature"], ["temperature"]]
