"""Conversations keep their expert: over turns, over tool loops, and over gateways."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from coe.base.errors import NoEligibleExpertError
from coe.base.redis_names import CONVERSATIONS
from coe.decision_log.decision_record import TerminalState
from coe.decision_log.read import has_failed, why_dropped
from coe.gateway.chat.conversations import Conversations, Last
from coe.gateway.routers.replay import replay
from coe.router.capabilities import Capabilities
from coe.router.config.policy import GAIN_FOR_DOUBLE_COST
from coe.router.loop import LoopState
from coe.router.pipeline import Router
from coe.router.policy.moves import MAX_MOVES, UNPRICED, Move, price_of_move, stay
from coe.router.prices.cost import Price
from coe.router.prices.usage import Usage
from coe.router.types import DecisionReason, Query, QueryFacts, StayRule
from tests.gateway.running import Running, running
from tests.gateway.small_router import EXPERTS, small_router
from tests.waiting import until

FIRST = {"role": "user", "content": "tell me all about red things and how they came to be red"}
ANSWER = {"role": "assistant", "content": "they are"}
OTHER = {"role": "user", "content": "and now tell me about everything that has some other colour than that one"}
GREEN = {"role": "user", "content": "now to another matter: what is it that makes all those green leaves green?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "42"}
LOOP = [FIRST, CALL, RESULT]
CACHING = Price({"input": 1.0, "cache_read": 0.001, "output": 5.0})
DEAR, CHEAP = Price({"input": 5.0, "cache_read": 0.5, "output": 25.0}), Price({"input": 1.0, "output": 5.0})
PRICES = {"ruby": DEAR, "emerald": CHEAP, "plain": Price({})}


def roomy() -> Router:
    """The small router with experts that take long conversations."""
    return small_router(capabilities={name: Capabilities() for name in EXPERTS})


def stalling(prices: Mapping[str, Price] = MappingProxyType({})) -> Router:
    """The small router whose green asks are pinned to plain, where emerald is better by 0.4."""
    router = roomy()
    pinned = replace(router.policies["default"], pins={1: 2})
    return replace(router, policies={**router.policies, "default": pinned}, prices=prices)


async def asked(it: Running, messages: Sequence[Mapping[str, Any]], **fields: Any) -> tuple[str, str | None]:
    """The expert, and what the answer says about the conversation."""
    async with it.chat(messages=list(messages), **fields) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["x-coe-expert"], answer.headers.get("x-coe-conversation")


LOOPS = st.builds(LoopState, same_calls=st.integers(1, 4), same_errors=st.integers(0, 4), good_turns=st.integers(0, 3))
REASONS = st.sampled_from([None, "map", "explored", "escalated"])


@given(
    st.sampled_from(["red", "green", "blue"]),
    st.tuples(st.sampled_from([*EXPERTS, "gone"]), REASONS, st.integers(0, MAX_MOVES)),
    st.tuples(st.integers(0, 400_000), st.floats(0, 1)),
    st.none() | LOOPS,
    st.sampled_from([{}, PRICES]),
    st.sampled_from(["default", "wild"]),
    st.sets(st.sampled_from(EXPERTS), min_size=1),
)
def test_a_conversation_moves_only_where_the_gain_is_above_the_price_or_its_loop_stalls(
    text: str,
    before: tuple[str, str | None, int],
    size: tuple[int, float],
    loop: LoopState | None,
    prices: dict[str, Price],
    policy: str,
    alive: set[str],
) -> None:
    router = replace(roomy(), prices=prices)
    rng = np.random.default_rng(0)
    fresh = router.decide(Query("q", text), rng=rng, alive=alive)
    last, reason, moves = before
    cached = int(size[0] // 4 * size[1])
    facts = QueryFacts(
        prompt_chars=size[0], loop=loop, last_expert=last, last_reason=reason, moves=moves, cached_tokens=cached
    )
    made = router.decide(Query("q", text, facts), rng=rng, alive=alive, policy=policy)
    quality = dict(zip(made.eligible, made.predicted_quality, strict=True))
    assert abs(sum(made.eligible_probs) - 1) < 1e-9
    assert made.propensity == made.eligible_probs[made.eligible.index(made.expert)]
    if last not in alive:
        assert made.stay is None
        return
    held = made.stay
    if loop is not None and loop.is_stalled:
        best = max(made.eligible, key=quality.__getitem__)
        may_move = quality[best] > quality[last] and moves < MAX_MOVES
        assert (held.rule, held.kept) == (StayRule.STALLED, not may_move)
        assert made.expert == (best if may_move else last)
    elif held.rule is StayRule.PRICE:
        assert held.gain == quality[fresh.expert] - quality[last]
        assert held.kept == (held.gain <= held.price)
    assert held.moves - moves == (loop is not None and not held.kept) <= MAX_MOVES - moves
    assert (held.rule is StayRule.UNSURE) <= (fresh.is_fallback and held.kept)
    if held.kept:
        assert (made.expert, made.propensity, made.seed) == (last, 1.0, None)
        assert made.reason in (fresh.reason, DecisionReason.KEPT, DecisionReason.ESCALATED)
    if loop is not None and not held.kept:
        assert made.expert != last, "a way to the same expert is none"
    if loop is not None and loop.is_stalled and not held.kept:
        assert (made.reason, made.propensity) == (DecisionReason.ESCALATED, 1.0)


@given(st.integers(1, 200_000), st.floats(0, 1), st.booleans(), st.sampled_from([DEAR, CHEAP, UNPRICED, Price({})]))
def test_a_move_costs_more_the_more_is_cached_and_nothing_once_the_cache_is_gone(
    tokens: int, share: float, in_loop: bool, other: Price
) -> None:
    def price(cached: int) -> float:
        loop = LoopState() if in_loop else None
        facts = QueryFacts(prompt_chars=4 * tokens, cached_tokens=cached, answers=3, loop=loop)
        return price_of_move(facts, DEAR, other)

    assert price(0) <= 0
    lasting = QueryFacts(prompt_chars=4 * tokens, cached_tokens=int(tokens * share), answers=3)
    in_a_loop = replace(lasting, loop=LoopState())
    assert price_of_move(in_a_loop, DEAR, DEAR) <= price_of_move(lasting, DEAR, DEAR), "more answers pay for it"
    assert price_of_move(lasting, DEAR, DEAR) >= 0
    assert price(int(tokens * share)) >= -GAIN_FOR_DOUBLE_COST - 1e-9


def test_a_move_from_a_dear_model_to_a_cheap_one_pays_back_after_one_turn() -> None:
    """100,000 tokens of which 95,000 are cached, at 5/25 USD per million and at 1/5."""
    facts = QueryFacts(prompt_chars=400_000, cached_tokens=95_000, answers=20)
    cheap = Price({"input": 1.0, "cache_read": 0.1, "output": 5.0})
    assert price_of_move(facts, DEAR, cheap) < 0 < price_of_move(facts, cheap, DEAR)
    per_turn = (50.0 + 25.0 + 62.5) - (10.0 + 5.0 + 12.5)
    lost = 95.0 * 0.9
    assert price_of_move(facts, DEAR, cheap) == pytest.approx(0.2 * (lost - 4 * per_turn) / (4 * 137.5), rel=0.01)


def test_an_expert_that_is_down_is_left() -> None:
    router, facts = roomy(), QueryFacts(loop=LoopState(), last_expert="ruby")
    made = router.decide(Query("q", "red", facts), rng=np.random.default_rng(0), alive=["plain"])
    assert (made.expert, made.stay) == ("plain", None)
    with pytest.raises(NoEligibleExpertError):
        router.decide(Query("q", "red", facts), rng=np.random.default_rng(0), alive=[])


async def test_a_long_conversation_stays_and_a_short_one_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its expert's prefix cache has forgotten it."""
    router = replace(roomy(), prices={name: CACHING for name in EXPERTS})
    long = {**FIRST, "content": f"{FIRST['content']} {'word ' * 60_000}"}
    async with running(router=router) as it:
        assert await asked(it, [FIRST]) == ("ruby", None)
        assert await asked(it, [FIRST, ANSWER, GREEN]) == ("emerald", "moved; gain=0.7000; price=0.0100")
        assert await asked(it, [long]) == ("ruby", None)
        expert, note = await asked(it, [long, ANSWER, GREEN])
        assert expert == "ruby"
        assert note.startswith("kept; gain=0.7000; price=25.")
        record = await it.record(3)
        async with it.client.get(f"{it.gateway.url}/decisions/{record.decision_id}") as answer:
            receipt = await answer.json()
        assert "stays with ruby" in receipt["why"]
        assert receipt["record"]["decision"]["stay"]["kept"] is True
        assert receipt["record"]["decision"]["propensity"] == 1
        monkeypatch.setattr("coe.gateway.chat.deciding.CACHE_S", 0.0)
        await asked(it, [long], user="ann")
        assert await asked(it, [long, ANSWER, GREEN], user="ann") == ("emerald", "moved; gain=0.7000; price=0.0000")
    assert not replay(router, record, b"0" * 32).differences
    assert why_dropped(record, {record.decision_id: 1.0}) == "the conversation kept its expert"
    assert not has_failed(record.model_copy(update={"state": TerminalState.UPSTREAM_ERROR, "status": 502}))


async def test_an_ask_that_nobody_understands_stays() -> None:
    """OTHER alone goes to plain, 0.2 better on the average query. Once it is known what is asked, it moves."""
    async with running(router=roomy()) as it:
        assert (await asked(it, [OTHER]))[0] == "plain"
        assert (await asked(it, [FIRST]))[0] == "ruby"
        kept = await asked(it, [FIRST, ANSWER, OTHER])
        assert kept == ("ruby", "kept; gain=0.2000; price=none, unsure")
        assert (await asked(it, [FIRST, ANSWER, OTHER, ANSWER, GREEN]))[0] == "emerald"
        for row, said in (
            (2, "stays with ruby, because it is unsure what is asked"),
            (3, "leaves ruby: a gain of 0.700, and the move costs 0.0"),
        ):
            record = await it.record(row)
            async with it.client.get(f"{it.gateway.url}/decisions/{record.decision_id}") as answer:
                assert said in (await answer.json())["why"]


async def test_conversations_of_one_user_are_apart() -> None:
    async with running(router=roomy()) as it:
        await asked(it, [FIRST], user="ann")
        await asked(it, [GREEN], user="ann")
        assert (await asked(it, [FIRST, ANSWER, OTHER], user="ann"))[0] == "ruby"


def failing(times: int) -> list[dict[str, Any]]:
    """The same call, which fails each time."""
    return [CALL, {**RESULT, "content": "Error: no such file"}] * times


def working(times: int) -> list[dict[str, Any]]:
    """Calls that bring something new."""
    return [each for number in range(times) for each in (CALL, {**RESULT, "content": f"found {number}"})]


async def test_a_loop_stays_where_a_move_does_not_pay() -> None:
    """It is planned by the map of its last ask. Policy `wild` draws an expert for each request that nothing keeps."""
    async with running(router=replace(roomy(), prices={name: CACHING for name in EXPERTS})) as it:
        for number in range(4):
            begin = [{**FIRST, "content": f"{FIRST['content']} {number}"}]
            first, note = await asked(it, begin, model="auto:wild")
            assert note is None
            for rounds in range(1, 6):
                expert, note = await asked(it, [*begin, *working(rounds)], model="auto:wild")
                assert expert == first
                assert note.endswith("price=none, explored") or first == "ruby"


async def test_a_stalled_loop_goes_to_the_strongest_by_the_third_and_returns_when_it_is_settled() -> None:
    """Green asks go to emerald, which is pinned to plain here: the strongest of the map is another."""
    async with running(router=stalling()) as it:
        assert await asked(it, [GREEN]) == ("plain", None)
        seen = [await asked(it, [GREEN, *failing(times)]) for times in (1, 2, 3)]
        assert [expert for expert, _ in seen] == ["plain", "plain", "emerald"]
        assert seen[2][1] == "moved; gain=0.4000; price=none, stalled"
        stays = await asked(it, [GREEN, *failing(3), *working(1)])
        assert stays == ("emerald", "kept; gain=-0.4000; price=none, unsettled")
        back = await asked(it, [GREEN, *failing(3), *working(2)])
        assert back[0] == "plain"
        assert back[1] == "moved; gain=-0.4000; price=none, settled"
        assert (await asked(it, [GREEN, *failing(3), *working(3)]))[0] == "plain"
        reasons, words = [], []
        for row in range(7):
            record = await it.record(row)
            assert not replay(stalling(), record, b"0" * 32).differences
            reasons.append(record.decision.reason)
            async with it.client.get(f"{it.gateway.url}/decisions/{record.decision_id}") as answer:
                words.append((await answer.json())["why"])
        assert reasons == ["pinned"] * 3 + ["escalated"] * 2 + ["pinned"] * 2
        assert "emerald serves, the strongest that the policy lets serve, because the loop repeats itself" in words[3]
        assert "emerald serves, because its loop is not settled" in words[4]
        assert "the conversation leaves emerald: its loop is settled" in words[5]
        escalated = (await it.record(3)).model_copy(update={"state": TerminalState.ANSWERED})
        assert why_dropped(escalated, {escalated.decision_id: 1.0}) == (
            "the strongest expert took over a loop that had stalled"
        )


async def test_a_settled_loop_stays_with_the_strongest_where_the_way_back_loses_more_than_it_saves() -> None:
    """At a tenth of the price a tenth of quality is saved twice over, and 0.4 is not."""
    plain = Price({"input": 0.5, "cache_read": 0.05, "output": 2.5})
    async with running(router=stalling({"ruby": DEAR, "emerald": DEAR, "plain": plain})) as it:
        await asked(it, [GREEN])
        assert (await asked(it, [GREEN, *failing(3)]))[0] == "emerald"
        expert, note = await asked(it, [GREEN, *failing(3), *working(2)])
        assert expert == "emerald"
        assert note.startswith("kept; gain=-0.4000; price=-0.1")
        assert (await it.record(2)).decision.reason is DecisionReason.ESCALATED
    facts = QueryFacts(last_expert="emerald", last_reason="escalated", loop=LoopState(good_turns=2))
    held = stay(facts, Move(-0.1, price_of_move(facts, DEAR, plain)), is_pinned=False, is_unsure=False)
    assert (held.rule, held.kept) == (StayRule.SETTLED, True), "a prompt of no tokens saves nothing"
    facts = replace(facts, prompt_chars=400_000, cached_tokens=95_000)
    held = stay(facts, Move(-0.1, price_of_move(facts, DEAR, plain)), is_pinned=False, is_unsure=False)
    assert (held.rule, held.kept) == (StayRule.SETTLED, False)


async def test_a_loop_moves_so_many_times_at_most() -> None:
    async with running(router=stalling()) as it:
        await asked(it, [GREEN])
        messages, experts = [GREEN], ["plain"]
        for _ in range(4):
            for more in (*[failing(1)] * 3, *[working(5)[step : step + 2] for step in range(0, 10, 2)]):
                messages = [*messages, *more]
                experts.append((await asked(it, messages))[0])
        moves = sum(one != other for one, other in pairwise(experts))
        assert moves == MAX_MOVES == 4
        assert (await asked(it, [*messages, *failing(3)]))[1].startswith("kept; gain=0.4000; price=none, stalled")


async def test_gateways_know_where_another_one_moved_a_loop(redis_url: str) -> None:
    async with (
        running(router=stalling(), redis_url=redis_url) as one,
        running(router=stalling(), redis_url=redis_url) as two,
    ):
        with Redis.from_url(redis_url) as client:
            seen = []
            for step in range(7):
                messages = [GREEN, *failing(min(step, 3)), *working(max(step - 3, 0))]
                seen.append((await asked((one, two)[step % 2], messages))[0])
                answered = str(step + 1).encode()
                await until(
                    lambda answered=answered: any(
                        (client.get(key) or b"").split()[0] == answered for key in client.keys(f"{CONVERSATIONS}*")
                    )
                )
        assert seen == ["plain"] * 3 + ["emerald"] * 2 + ["plain"] * 2


async def test_what_the_usage_of_an_answer_says_of_the_cache_counts(redis_url: str) -> None:
    one = Conversations(redis_url)
    one.note("c", Last(1, "ruby", tokens=1000, until=time.time() + 300))
    facts = QueryFacts(prompt_chars=8000)
    assert Last(1, "ruby", tokens=1000, until=time.time() + 300).facts(facts).cached_tokens == 1000
    assert Last(1, "ruby", tokens=1000, until=time.time() - 1).facts(facts).cached_tokens == 0
    one.hear("c", Usage(prompt_tokens=1500, kinds={"cache_read": 900, "cache_write_1h": 300, "reasoning": 7}))
    last = await one.last("c", 1)
    assert last.tokens == 1200
    assert last.until > time.time() + 3000, "it was written for an hour"
    one.hear("c", Usage(prompt_tokens=1500, kinds={"reasoning": 7}))
    assert (await one.last("c", 1)).tokens == 1200, "reasoning says nothing of the cache"
    await one.aclose()


async def test_gateways_share_conversations(redis_url: str) -> None:
    async with running(router=roomy(), redis_url=redis_url) as one, running(router=roomy(), redis_url=redis_url) as two:
        with Redis.from_url(redis_url) as client:
            client.config_resetstat()
            first, _ = await asked(one, [FIRST], model="auto:wild")
            await until(lambda: bool(client.keys(f"{CONVERSATIONS}*")))
            assert "cmdstat_get" not in client.info("commandstats"), "a new conversation waits for nothing"
            key = client.keys(f"{CONVERSATIONS}*")[0]
            assert "red" not in str(key)
            for _ in range(8):
                assert (await asked(two, LOOP, model="auto:wild"))[0] == first
            assert client.info("commandstats")["cmdstat_get"]["calls"] == 1, "the other gateway asks once"
            assert 0 < client.ttl(key) <= 3600


async def test_the_later_turn_counts(redis_url: str) -> None:
    one, two = Conversations(redis_url), Conversations(redis_url)
    with Redis.from_url(redis_url) as client:
        first, second = Last(1, "ruby"), Last(2, "plain", 3, "explored", 1234, 1_800_000_000.0)
        one.note("c", first)
        await until(lambda: client.get(f"{CONVERSATIONS}c") == b"1 0 - 0 0 ruby")
        two.note("c", second)
        await until(lambda: client.get(f"{CONVERSATIONS}c") == b"2 3 explored 1234 1800000000 plain")
        assert await one.last("c", 1) == first, "what it noted itself is new enough"
        assert await one.last("c", 2) == second, "another gateway answered meanwhile"
        assert await one.last("unknown", 1) is None
        client.set(f"{CONVERSATIONS}odd", b"1 ruby")
        assert await one.last("odd", 1) is None
    await one.aclose()
    await two.aclose()


async def test_without_redis_a_gateway_knows_its_own_conversations(tmp_path: Path) -> None:
    async with running(router=roomy(), redis_url=f"unix://{tmp_path}/nobody.sock") as it:
        first, _ = await asked(it, [FIRST], model="auto:wild")
        for _ in range(5):
            assert (await asked(it, LOOP, model="auto:wild"))[0] == first
        assert (await asked(it, [OTHER, CALL, RESULT]))[1] is None


async def test_redis_that_stays_away_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.gateway.chat.conversations.PAUSE_S", 0.0)
    nobody = Conversations(f"unix://{tmp_path}/nobody.sock")
    for name in ("a", "b", "c"):
        assert await nobody.last(name, 1) is None
    await nobody.aclose()
    assert [record.name for record in caplog.records] == ["coe.gateway.chat.conversations"]


async def test_a_note_that_was_not_sent_yet_is_sent_at_the_end(redis_url: str) -> None:
    one = Conversations(redis_url)
    one.note("c", Last(1, "ruby"))
    await one.aclose()
    with Redis.from_url(redis_url) as client:
        assert client.get(f"{CONVERSATIONS}c") == b"1 0 - 0 0 ruby"


async def test_a_program_that_adds_to_the_results_of_tools_stays_in_its_loop() -> None:
    """Claude Code puts reminders beside the results, and a person may add to them."""
    result = {"type": "tool_result", "tool_use_id": "1", "content": "42"}
    reminder = {"type": "text", "text": "<system-reminder>be brief</system-reminder>"}
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}
    messages = [FIRST, use, {"role": "user", "content": [result, reminder]}]
    async with running(router=roomy()) as it:
        seen = set()
        for asked_now in ([FIRST], *[messages] * 8):
            body = {"model": "auto:wild", "max_tokens": 9, "messages": asked_now}
            async with it.client.post(f"{it.gateway.url}/messages", json=body) as answer:
                assert answer.status == 200, await answer.text()
                seen.add(answer.headers["x-coe-expert"])
        assert len(seen) == 1
        more = [*LOOP, {"role": "user", "content": "and hurry, please, I have to leave soon"}]
        assert {(await asked(it, more, model="auto:wild"))[0] for _ in range(8)} == seen


async def test_the_state_of_a_loop_is_logged_shown_and_part_of_a_dry_run() -> None:
    fails = {**RESULT, "content": "Error: line 3"}
    messages = [FIRST, *[CALL, fails] * 2]
    words = "step 3 of a loop: an error, the same call 2 times, the same error 2 times, phase plan"
    async with running(router=roomy()) as it:
        await asked(it, messages)
        record = await it.record(0)
        assert record.loop == LoopState(turns=2, tool="f", is_error=True, same_calls=2, same_errors=2)
        assert record.inputs is not None
        assert record.inputs.facts.loop is None, "it is kept once"
        assert not replay(roomy(), record, b"0" * 32).differences
        async with it.client.get(f"{it.gateway.url}/decisions/{record.decision_id}") as answer:
            receipt = await answer.json()
        assert receipt["record"]["loop"]["same_errors"] == 2
        assert receipt["why"].endswith(words)
        async with it.client.post(f"{it.gateway.url}/route", json={"messages": messages}) as answer:
            dry = await answer.json()
        assert dry["loop"]["tool"] == "f"
        assert dry["why"].endswith(words)
        await asked(it, messages, model="ruby")
        assert (await it.record(1)).loop == record.loop, "also where the client named the expert"


@pytest.mark.parametrize("prices", [{}, PRICES])
def test_a_settled_loop_whose_strongest_expert_is_the_planned_one_has_nowhere_to_return_to(
    prices: dict[str, Price],
) -> None:
    facts = QueryFacts(last_expert="ruby", last_reason="escalated", moves=1, loop=LoopState(good_turns=2))
    made = replace(roomy(), prices=prices).decide(Query("q", "red", facts), rng=np.random.default_rng(0))
    assert (made.expert, made.stay.kept, made.stay.moves) == ("ruby", True, 1)
