"""Feedback over HTTP to a real database: what is kept, what is repeated, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coe.decision_log.database import Database
from coe.decision_log.feedback_types import Feedback, FeedbackKind, FeedbackStatus
from coe.decision_log.sql_removal import Removal
from coe.router.capabilities import Capabilities
from coe.router.config.feedback import FeedbackConfig
from tests.gateway.changes.test_swap import swap
from tests.gateway.running import Running, echoes, running
from tests.gateway.small_router import EXPERTS, small_router

KEY = "a-key-of-enough-length"
HEADERS = {"authorization": f"Bearer {KEY}"}


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    yield opened
    opened.close()


@asynccontextmanager
async def answered(kept_in: Database, **feedback: object) -> AsyncIterator[tuple[Running, str]]:
    """A gateway that has answered one request."""
    async with running(store=kept_in, keys=[KEY], sections={"feedback": feedback}) as gateway:
        async with gateway.chat("green", headers=HEADERS) as answer:
            decision_id = answer.headers["x-coe-decision-id"]
        kept_in.write_decisions([await gateway.record()])
        yield gateway, decision_id


async def say(gateway: Running, decision_id: str, **fields: object) -> tuple[int, dict[str, Any]]:
    body = {"decision_id": decision_id, **fields}
    async with gateway.client.post(f"{gateway.root}/v1/feedback", json=body, headers=HEADERS) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({"kind": "thumb", "value": 1}, 1.0),
        ({"kind": "score", "value": 0.7}, 0.7),
        ({"kind": "edit", "value": 0.9}, 0.9),
        ({"kind": "retry"}, 0.0),
        ({"kind": "test", "value": 1}, 1.0),
        ({"kind": "ticket", "value": 0}, 0.0),
    ],
)
async def test_every_kind_is_kept_and_comes_again_harmlessly(sqlite_store, said, value):
    async with answered(sqlite_store) as (gateway, decision_id):
        assert await say(gateway, decision_id, **said) == (
            202,
            {"decision_id": decision_id, "value": value, "status": "accepted"},
        )
        first = sqlite_store.get_feedback(decision_id)
        assert (await say(gateway, decision_id, **said))[1]["status"] == "repeated"
        assert sqlite_store.get_feedback(decision_id) == first
        assert [(kept.kind.value, kept.value) for kept in first] == [(said["kind"], value)]


@pytest.mark.parametrize(
    ("path", "asks"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "green"}]}),
        ("responses", {"input": "green"}),
        ("messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "green"}]}),
        ("completions", {"prompt": "green"}),
    ],
)
async def test_an_answer_may_be_named_by_the_id_that_is_in_it(sqlite_store: Database, path: str, asks: dict) -> None:
    async with running(store=sqlite_store, keys=[KEY]) as gateway:
        url = f"{gateway.root}/v1"
        async with gateway.client.post(f"{url}/{path}", json={"model": "auto", **asks}, headers=HEADERS) as answer:
            answer_id, decision_id = (await answer.json())["id"], answer.headers["x-coe-decision-id"]
        assert answer_id != decision_id
        sqlite_store.write_decisions([await gateway.record()])
        status, kept = await say(gateway, answer_id, kind="thumb", value=1)
        assert (status, kept["decision_id"]) == (202, decision_id)
        async with gateway.client.get(f"{url}/decisions/{answer_id}", headers=HEADERS) as answer:
            receipt = await answer.json()
    assert receipt["record"]["decision_id"] == decision_id
    assert len(receipt["feedback"]) == 1


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"kind": "thumb"}, "kind 'thumb' needs 'value'"),
        ({"kind": "thumb", "value": 0.5}, "kind 'thumb' takes the value 0 or 1"),
        ({"kind": "retry", "value": 1}, "kind 'retry' takes the value 0"),
        ({"kind": "edit"}, "kind 'edit' needs 'value'"),
        ({"kind": "edit", "value": 1, "edited": "a secret"}, "'edited'"),
        ({"kind": "score", "value": float("nan")}, ""),
    ],
)
async def test_what_makes_no_sense_is_refused(sqlite_store, said, message):
    async with answered(sqlite_store) as (gateway, decision_id):
        status, answer = await say(gateway, decision_id, **said)
        assert status == 400
        assert message in answer["error"]["message"]
        assert "secret" not in answer["error"]["message"]
        assert sqlite_store.get_feedback(decision_id) == ()


async def test_feedback_joins_late_and_another_value_replaces(sqlite_store):
    async with answered(sqlite_store) as (_, decision_id):
        record = sqlite_store.get_decision(decision_id)
    async with running(store=sqlite_store, keys=[KEY]) as later:  # the decision is in no memory any more
        assert (await say(later, record.decision_id, kind="thumb", value=1))[0] == 202
        assert await say(later, record.decision_id, kind="thumb", value=0) == (
            200,
            {"decision_id": record.decision_id, "value": 0.0, "status": "replaced"},
        )


async def test_the_limit_of_an_hour_changes_while_the_gateway_runs(sqlite_store):
    async with answered(sqlite_store, max_per_hour=1) as (gateway, first):
        assert (await say(gateway, first, kind="thumb", value=1))[0] == 202
        assert (await say(gateway, first, kind="score", value=1))[0] == 429
        config = gateway.parts.config
        feedback = config.feedback.model_copy(update={"max_per_hour": 2})
        await swap(gateway, config.model_copy(update={"feedback": feedback}), echoes())
        assert (await say(gateway, first, kind="score", value=1))[0] == 202
        assert (await say(gateway, first, kind="test", value=1))[0] == 429


async def test_36_a_key_that_says_too_much_is_refused(sqlite_store):
    async with answered(sqlite_store, max_per_hour=3) as (gateway, first):
        others = []
        for number in (1, 2):
            async with gateway.chat("red", headers=HEADERS) as answer:
                others.append(answer.headers["x-coe-decision-id"])
            await gateway.record(number)
        assert (await say(gateway, first, kind="thumb", value=1))[0] == 202
        assert (await say(gateway, first, kind="score", value=1))[0] == 202
        assert (await say(gateway, first, kind="thumb", value=0))[0] == 200  # a change of mind is not a new piece
        assert (await say(gateway, others[0], kind="thumb", value=1))[0] == 202
        body = {"decision_id": others[1], "kind": "thumb", "value": 1}
        async with gateway.client.post(f"{gateway.root}/v1/feedback", json=body, headers=HEADERS) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (429, "60")
            assert "3 pieces of feedback within an hour" in (await answer.json())["error"]["message"]
        counted = gateway.parts.metrics.text().decode().splitlines()
    assert 'coe_feedback_total{kind="thumb",status="accepted"} 2.0' in counted


def test_36_the_cap_of_an_hour_is_exact_under_concurrency(store):
    caps = FeedbackConfig(max_per_hour=10)

    def put(number: int) -> FeedbackStatus:
        thumb = Feedback(decision_id=f"d{number}", kind=FeedbackKind.THUMB, value=1.0, at=9e3 + number, key_id="k")
        return store.put_feedback(thumb, caps)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(put, range(40)))
    assert (found.count(FeedbackStatus.ACCEPTED), found.count(FeedbackStatus.OVER_HOUR)) == (10, 30)
    later = Feedback(decision_id="d", kind=FeedbackKind.THUMB, value=1.0, at=9e3 + 3700, key_id="k")
    assert store.put_feedback(later, caps) is FeedbackStatus.ACCEPTED
    other = Feedback(decision_id="d", kind=FeedbackKind.THUMB, value=1.0, at=9e3, key_id="other")
    assert store.put_feedback(other, caps) is FeedbackStatus.ACCEPTED


async def test_retried_posts_at_once_are_one_piece(sqlite_store):
    async with answered(sqlite_store) as (gateway, decision_id):
        found = await asyncio.gather(*(say(gateway, decision_id, kind="thumb", value=1) for _ in range(8)))
        assert sorted(status for status, _ in found) == [200] * 7 + [202]
        assert len(sqlite_store.get_feedback(decision_id)) == 1


async def test_the_receipt_has_everything(sqlite_store):
    async with answered(sqlite_store) as (gateway, decision_id):
        await say(gateway, decision_id, kind="thumb", value=1)
        async with gateway.client.get(f"{gateway.root}/v1/decisions/{decision_id}", headers=HEADERS) as answer:
            receipt = await answer.json()
        async with gateway.chat("green", headers=HEADERS, model="ruby") as answer:
            named = answer.headers["x-coe-decision-id"]
        await gateway.record(1)
        async with gateway.client.get(f"{gateway.root}/v1/decisions/{named}", headers=HEADERS) as answer:
            by_name = await answer.json()
    assert [each["category"] for each in receipt["signals"]["categories"]] == ["green", "red"]
    assert receipt["signals"]["threshold"] == 0.2
    assert receipt["signals"]["uncertainty"] < 0.2
    emerald = next(each for each in receipt["experts"] if each["expert"] == "emerald")
    assert (emerald["is_chosen"], emerald["prob"], emerald["lacks"]) == (True, 1.0, None)
    assert emerald["predicted_quality"] == pytest.approx(0.9)
    assert (emerald["predicted_cost_usd"], emerald["predicted_wait_ms"]) == (0.0, None)
    assert [each["expert"] for each in receipt["experts"] if each["is_runner_up"]] == ["plain"]
    assert [(said["kind"], said["value"]) for said in receipt["feedback"]] == [("thumb", 1.0)]
    assert (receipt["implicit"], receipt["record"]["embedding"]) == ([], None)
    assert (by_name["signals"], by_name["experts"]) == (None, [])


async def test_the_receipt_says_what_an_expert_lacks(sqlite_store):
    sees = {name: Capabilities(context_tokens=4096) for name in EXPERTS} | {"plain": Capabilities()}
    router = small_router(capabilities=sees)
    async with running(store=sqlite_store, keys=[KEY], router=router) as gateway:
        long = "red " * 5000  # more than the context of 4,096 tokens, for all but whoever has none
        async with gateway.chat(long, headers=HEADERS) as answer:
            assert answer.headers["x-coe-expert"] == "plain"
            decision_id = answer.headers["x-coe-decision-id"]
        await gateway.record()
        async with gateway.client.get(f"{gateway.root}/v1/decisions/{decision_id}", headers=HEADERS) as answer:
            experts = (await answer.json())["experts"]
    assert [each["expert"] for each in experts] == ["plain", "ruby", "emerald"]
    assert experts[1]["lacks"] == "context of 4096 tokens is less than the 5000 needed"
    assert (experts[1]["prob"], experts[1]["predicted_quality"]) == (0.0, pytest.approx(0.9))


async def test_what_was_erased_takes_no_feedback_while_a_gateway_still_shows_it(sqlite_store):
    async with answered(sqlite_store) as (gateway, decision_id):
        record = await gateway.record()
        Removal(sqlite_store).erase({record.key_id}, record.at)
        status, answer = await say(gateway, decision_id, kind="thumb", value=1)
        assert (status, answer["error"]["code"]) == (404, "decision_not_found")
        assert sqlite_store.get_feedback(decision_id) == ()


async def test_a_decision_that_another_gateway_has_just_made_is_waited_for(sqlite_store):
    async with running(keys=[KEY]) as first, running(store=sqlite_store, keys=[KEY]) as second:
        async with first.chat("green", headers=HEADERS) as answer:
            decision_id = answer.headers["x-coe-decision-id"]
        said = asyncio.create_task(say(second, decision_id, kind="thumb", value=1))
        sqlite_store.write_decisions([await first.record()])
        assert (await said)[0] == 202
