"""A judge beside a real gateway: what it asks whom, what is kept, and when it keeps out of the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from coe.base.errors import ConfigError
from coe.decision_log.database import Database
from coe.decision_log.feedback_types import JudgedAnswer
from coe.decision_log.sql_removal import Removal
from coe.fleet.calls.backend import BackendRequest, BackendResponse, Unconnected, chunks_of
from coe.fleet.calls.chat_completions import last_question
from coe.fleet.providers import echo
from coe.gateway.chat.judge import Judge
from coe.router.config.composition import parse_config
from tests.gateway.changes.test_swap import swap
from tests.gateway.running import Running, config_of, echoes, running
from tests.gateway.test_store import record
from tests.waiting import until


class Scripted(Unconnected):
    """An expert whose answer is a function of the last message; it remembers what it was asked."""

    def __init__(self, answer: Callable[[str], str], status: int = 200) -> None:
        self.asked: list[Mapping[str, object]] = []
        self._answer, self._status = answer, status

    async def send(self, request: BackendRequest) -> BackendResponse:
        self.asked.append(request.body)
        text = last_question(request.body)
        inner = echo.build(echo.Options())
        reply = {"messages": [{"role": "user", "content": self._answer(text)}]}
        found = await inner.send(BackendRequest(reply, is_stream=request.is_stream))
        return BackendResponse(self._status, found.chunks, found.headers)


def prefers_ruby(text: str) -> str:
    """Grades ruby's answers 9 and others 4, and prefers ruby's in either place."""
    if "Reply with the number" in text:
        return "9" if "from ruby" in text else "4"
    if "<<<SECOND" not in text:
        return f"from plain: {text}"  # asked as one of those that were not chosen
    return "first" if "from ruby" in text.split("<<<SECOND")[0] else "second"


@asynccontextmanager
async def judged(
    judge: Scripted, store: Database | None = None, others: Mapping[str, Scripted] | None = None, **settings: Any
) -> AsyncIterator[tuple[Running, Judge]]:
    """A gateway where `plain` judges what ruby and emerald say."""
    section = {"expert": "plain", "share": 1.0, **settings}
    experts = {name: Scripted(lambda text, name=name: f"from {name}: {text}") for name in ("ruby", "emerald")}
    backends = echoes(plain=judge, **(experts | dict(others or {})))
    async with running(backends, sections={"judge": section}, store=store) as gateway:
        gateway.parts.judge._rng.choice = min  # of those that were not chosen, emerald before plain
        yield gateway, gateway.parts.judge


def by_pair(found: list[JudgedAnswer]) -> dict[tuple[str, str], tuple[float, bool | None]]:
    return {(each.expert, each.other): (each.value, each.is_consistent) for each in found}


@pytest.mark.parametrize("is_stream", [False, True])
async def test_answers_are_graded_and_compared_in_both_orders(is_stream):
    judge = Scripted(prefers_ruby)
    async with judged(judge) as (gateway, worker):
        async with gateway.chat("red", stream=is_stream) as answer:
            await answer.read()
        await until(lambda: worker.judged == 1)
        found = gateway.store.judgements
        assert {each.decision_id for each in found} == {(await gateway.record()).decision_id}
        assert len(gateway.log.records) == 1  # what a judge asks is not traffic
    assert by_pair(found) == {
        ("ruby", ""): (0.9, None),
        ("emerald", ""): (0.4, None),
        ("ruby", "emerald"): (1.0, True),
    }
    questions = [last_question(body) for body in judge.asked]
    assert "from ruby: red" in questions[0]
    assert sum("<<<FIRST" in question for question in questions) == 2


async def test_another_expert_is_asked_for_one_answer():
    """Whatever the client asked for: the gateway pays for it."""
    emerald = Scripted(lambda text: f"from emerald: {text}")
    async with judged(Scripted(prefers_ruby), others={"emerald": emerald}) as (gateway, worker):
        async with gateway.chat("red", n=3, best_of=4, stream=True, max_tokens=9) as answer:
            await answer.read()
        await until(lambda: worker.judged == 1)
    assert emerald.asked == [{"model": "auto", "messages": [{"role": "user", "content": "red"}], "max_tokens": 9}]


async def test_a_judge_that_prefers_a_place_is_found_out():
    judge = Scripted(lambda text: "first" if "<<<FIRST" in text else "5")
    async with judged(judge) as (gateway, worker):
        async with gateway.chat("green") as answer:
            assert answer.headers["x-coe-expert"] == "emerald"
        await until(lambda: worker.judged == 1)
        pairs = [each for each in gateway.store.judgements if each.other]
    assert [(each.value, each.is_consistent) for each in pairs] == [(0.5, False)]


@pytest.mark.parametrize(
    "judge", [Scripted(lambda text: "no idea"), Scripted(lambda text: "7", status=500)], ids=["words", "status"]
)
async def test_a_judge_that_fails_hurts_nobody(judge):
    async with judged(judge) as (gateway, worker):
        async with gateway.chat("red") as answer:
            assert answer.status == 200
        await until(lambda: worker.left_out == 1)
        assert gateway.store.judgements == []


async def test_what_is_not_judged():
    async with judged(Scripted(prefers_ruby)) as (gateway, worker):
        tool = {"type": "function", "function": {"name": "f"}}
        for fields in ({"model": "ruby"}, {"tools": [tool]}, {"model": "nobody"}):
            async with gateway.chat("red", **fields) as answer:
                await answer.read()
        async with gateway.chat("red") as answer:
            await answer.read()
        await until(lambda: worker.judged == 1)
        assert (worker.left_out, len({each.decision_id for each in gateway.store.judgements})) == (0, 1)


async def test_the_budget_leaves_the_rest_out():
    async with judged(Scripted(prefers_ruby)) as (gateway, worker):
        for n in range(5):
            async with gateway.chat("red") as answer:
                await answer.read()
            await until(lambda n=n: worker.judged + worker.left_out == n + 1)
            if n == 1:
                worker._budget.spend(1.0)
        await until(lambda: worker.judged == 2 and worker.left_out == 3)
        counted = gateway.parts.metrics.text().decode().splitlines()
    assert {"coe_judged_total 2.0", "coe_judge_left_out_total 3.0"} <= set(counted)


async def test_it_waits_while_requests_run(monkeypatch):
    monkeypatch.setattr("coe.gateway.chat.judge.MAX_RUNNING_BESIDE", 0)
    judge = Scripted(prefers_ruby)
    async with judged(judge) as (gateway, worker):
        async with gateway.parts.concurrency:  # somebody else's request
            async with gateway.chat("red") as answer:
                await answer.read()
            await gateway.record()
            async with gateway.chat("green") as answer:  # more traffic passes meanwhile
                await answer.read()
            await gateway.record(1)
            assert judge.asked == []
        await until(lambda: worker.judged == 2)


def test_judgements_in_sql(store: Database):
    store.write_decisions([record(0)])
    one = JudgedAnswer(decision_id="r1-0", judge="j", rubric="r", expert="a", value=0.5, at=1_700_000_000.0)
    pair = one.model_copy(update={"other": "b", "value": 1.0, "is_consistent": True})
    store.put_judgements([one, pair])
    store.put_judgements([one.model_copy(update={"value": 0.9})])
    store.put_judgements([])
    assert rows(store) == [("", 0.5, None), ("b", 1.0, True)]
    Removal(store).prune(1_700_000_001.0, 1_700_000_002.0)
    assert rows(store) == []


def rows(store: Database) -> list[tuple[str, float, bool | None]]:
    with store.transaction("look") as connection:
        found = connection.exec_driver_sql("SELECT other, value, is_consistent FROM judgements ORDER BY other").all()
    return [(row[0], row[1], None if row[2] is None else bool(row[2])) for row in found]


def test_a_judge_must_be_an_expert():
    values = config_of().model_dump(mode="json", exclude_none=True)
    with pytest.raises(ConfigError, match=r"judge\.expert: unknown expert 'rubi'; did you mean 'ruby'"):
        parse_config(values | {"judge": {"expert": "rubi", "share": 0.1}})


async def test_after_a_change_the_experts_in_force_are_asked():
    """Those that are gone leave an answer unjudged that waited for them; the budget is that of before."""
    before, after = Scripted(prefers_ruby), Scripted(prefers_ruby)
    section = {"expert": "plain", "share": 1.0}
    async with judged(before) as (gateway, worker):
        worker._quiet = held = Held()
        async with gateway.chat("red") as answer:
            await answer.read()
        await until(lambda: held.waiting == 1)
        config = config_of(("ruby", "plain"), sections={"judge": section})
        await swap(gateway, config, {"ruby": gateway.parts.pool.backend("ruby"), "plain": after})
        assert gateway.parts.judge is worker
        held.gate.set()
        await until(lambda: worker.left_out == 1)
        async with gateway.chat("red") as answer:
            await answer.read()
        await until(lambda: worker.judged == 1)
        assert worker.left_out == 1
    assert before.asked == []
    assert after.asked != []


class Held:
    """A gateway that is not quiet before the gate opens."""

    def __init__(self) -> None:
        self.gate, self.waiting = asyncio.Event(), 0

    async def __call__(self) -> None:
        self.waiting += 1
        await self.gate.wait()


class Reasoning(Scripted):
    """Takes what OpenAI's reasoning models take."""

    async def send(self, request: BackendRequest) -> BackendResponse:
        for name in ("temperature", "max_tokens"):
            if name in request.body:
                return BackendResponse(400, chunks_of([f"Unsupported parameter: '{name}'".encode()]))
        return await super().send(request)


async def test_a_judge_may_be_a_model_that_has_one_temperature():
    judge = Reasoning(prefers_ruby)
    async with judged(judge) as (gateway, worker):
        async with gateway.chat("red") as answer:
            await answer.read()
        await until(lambda: worker.judged + worker.left_out == 1)
    assert worker.judged == 1


async def judged_of(gateway: Running, worker: Judge, model: str, n: int) -> set[str]:
    """Asks so often, each time once what is sampled was judged; the decisions."""
    asked, sampled, put = set(), [], worker._queue.put_nowait
    worker._queue.put_nowait = lambda sample: (sampled.append(sample), put(sample))
    for _ in range(n):
        async with gateway.chat("red", model=model) as answer:
            await answer.read()
            asked.add(answer.headers["x-coe-decision-id"])
        await until(lambda: len(gateway.log.records) >= len(asked) and worker.judged == len(sampled))
    worker._queue.put_nowait = put
    return asked


async def test_a_judge_of_uncertain_queries_leaves_the_others_alone():
    """Policy `wild` explores most queries, the default none."""
    async with judged(Scripted(prefers_ruby), queries="uncertain") as (gateway, worker):
        await judged_of(gateway, worker, "auto", 3)
        assert gateway.store.judgements == []
        worker._rng.seed(1)
        gateway.log.records.clear()
        wild = await judged_of(gateway, worker, "auto:wild", 20)
        found = {each.decision_id for each in gateway.store.judgements}
        assert found < wild  # not where the second draw was the first
        assert len(found) > 5
        pairs = [each for each in gateway.store.judgements if each.other]
    assert len(pairs) == len(found)
    assert len({each.other for each in pairs}) > 1


async def test_of_uncertain_queries_experts_that_were_compared_enough_are_judged_no_more(monkeypatch, store: Database):
    """Also by a gateway that starts again; by another rubric, nobody was compared yet."""
    monkeypatch.setattr("coe.gateway.chat.judge.ENOUGH", 2)
    n_judged = []
    for rubric in ("Is it right?", "Is it right?", "Is it short?"):
        async with judged(Scripted(prefers_ruby), store, queries="uncertain", rubric=rubric) as (gateway, worker):
            await judged_of(gateway, worker, "auto:wild", 40)
            assert min(store.count_compared("plain", worker._rubric_hash).values()) == 2
            n_judged.append(worker.judged)
    assert [n > 0 for n in n_judged] == [True, False, True]


async def test_gateways_on_one_database_compare_an_expert_often_enough_together(monkeypatch, store: Database):
    monkeypatch.setattr("coe.gateway.chat.judge.ENOUGH", 20)
    settings = {"queries": "uncertain"}
    async with (
        judged(Scripted(prefers_ruby), store, **settings) as (gateway, worker),
        judged(Scripted(prefers_ruby), store, **settings) as (other, late),
    ):
        await judged_of(gateway, worker, "auto:wild", 200)
        await judged_of(other, late, "auto:wild", 200)
    assert worker.judged >= 20
    assert late.judged == 1


def test_pairs_are_counted_by_expert(store: Database):
    grade = JudgedAnswer(decision_id="r1-0", judge="j", rubric="r", expert="a", value=0.5, at=1.0)
    pairs = [("r1-0", "a", "b"), ("r1-1", "a", "b"), ("r1-2", "c", "a")]
    changed = [{"decision_id": name, "expert": one, "other": other} for name, one, other in pairs]
    others = [changed[0] | {"judge": "k"}, changed[0] | {"rubric": "s"}]
    store.put_judgements([grade, *(grade.model_copy(update=each) for each in changed + others)])
    assert store.count_compared("j", "r") == {"a": 3, "b": 2, "c": 1}
