"""Conversations keep their expert: over turns, over tool loops, and over gateways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
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
from coe.gateway.conversations import Conversations
from coe.gateway.replay import replay
from coe.router.capabilities import Capabilities
from coe.router.conversation import PRICE_PER_1000_TOKENS
from coe.router.pipeline import Router
from coe.router.types import DecisionReason, LoopState, Query, QueryFacts
from tests.gateway.running import Running, running
from tests.gateway.small_router import EXPERTS, small_router
from tests.waiting import until

FIRST = {"role": "user", "content": "tell me all about red things and how they came to be red"}
ANSWER = {"role": "assistant", "content": "they are"}
LONG = {"role": "assistant", "content": "word " * 60_000}  # 75,000 tokens, worth 0.75 of quality
OTHER = {"role": "user", "content": "and now tell me about everything that has some other colour than that one"}
GREEN = {"role": "user", "content": "now to another matter: what is it that makes all those green leaves green?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "42"}
LOOP = [FIRST, CALL, RESULT]


def roomy() -> Router:
    """The small router with experts that take long conversations."""
    return small_router(capabilities={name: Capabilities() for name in EXPERTS})


async def asked(it: Running, messages: Sequence[Mapping[str, Any]], **fields: Any) -> tuple[str, str | None]:
    """The expert, and what the answer says about the conversation."""
    async with it.chat(messages=list(messages), **fields) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["x-coe-expert"], answer.headers.get("x-coe-conversation")


@given(
    st.sampled_from(["red", "green", "blue"]),
    st.sampled_from([*EXPERTS, "gone"]),
    st.integers(0, 400_000),
    st.booleans(),
    st.sampled_from(["default", "wild"]),
    st.sets(st.sampled_from(EXPERTS), min_size=1),
)
def test_a_conversation_moves_only_where_the_gain_is_above_the_price(
    text: str, last: str, chars: int, in_tool_loop: bool, policy: str, alive: set[str]
) -> None:
    router = roomy()
    rng = np.random.default_rng(0)
    fresh = router.decide(Query("q", text), rng=rng, alive=alive)
    facts = QueryFacts(prompt_chars=chars, loop=LoopState() if in_tool_loop else None, last_expert=last)
    made = router.decide(Query("q", text, facts), rng=rng, alive=alive, policy=policy)
    quality = dict(zip(made.eligible, made.predicted_quality, strict=True))
    assert abs(sum(made.eligible_probs) - 1) < 1e-9
    assert made.propensity == made.eligible_probs[made.eligible.index(made.expert)]
    if last not in alive:
        assert made.stay is None
        return
    held = made.stay
    assert held.gain == quality[fresh.expert] - quality[last]
    is_cheap = held.gain <= chars // 4 / 1000 * PRICE_PER_1000_TOKENS
    assert held.kept == (in_tool_loop or fresh.is_fallback or is_cheap)
    assert held.is_unsure == (fresh.is_fallback and not in_tool_loop)
    if held.kept:
        assert (made.expert, made.propensity, made.seed) == (last, 1.0, None)
        assert (made.reason is DecisionReason.KEPT) == (last != fresh.expert)


def test_an_expert_that_is_down_is_left() -> None:
    router, facts = roomy(), QueryFacts(loop=LoopState(), last_expert="ruby")
    made = router.decide(Query("q", "red", facts), rng=np.random.default_rng(0), alive=["plain"])
    assert (made.expert, made.stay) == ("plain", None)
    with pytest.raises(NoEligibleExpertError):
        router.decide(Query("q", "red", facts), rng=np.random.default_rng(0), alive=[])


async def test_a_long_conversation_stays_and_a_short_one_moves() -> None:
    async with running(router=roomy()) as it:
        assert await asked(it, [FIRST]) == ("ruby", None)
        assert await asked(it, [FIRST, ANSWER, GREEN]) == ("emerald", "moved; gain=0.7000; price=0.0003")
        named = {"user": "ann"}
        assert await asked(it, [FIRST], **named) == ("ruby", None)
        expert, note = await asked(it, [FIRST, LONG, GREEN], **named)
        assert expert == "ruby"
        assert note.startswith("kept; gain=0.7000; price=0.75")
        record = await it.record(3)
        async with it.client.get(f"{it.gateway.url}/decisions/{record.decision_id}") as answer:
            receipt = await answer.json()
        assert "stays with ruby" in receipt["why"]
        assert receipt["record"]["decision"]["stay"]["kept"] is True
        assert receipt["record"]["decision"]["propensity"] == 1
    assert not replay(roomy(), record, b"0" * 32).differences
    assert why_dropped(record, {record.decision_id: 1.0}) == "the conversation kept its expert"
    assert not has_failed(record.model_copy(update={"state": TerminalState.UPSTREAM_ERROR, "status": 502}))


async def test_an_ask_that_nobody_understands_stays() -> None:
    """OTHER alone goes to plain, 0.2 better on the average query. Once it is known what is asked, it moves."""
    async with running(router=roomy()) as it:
        assert (await asked(it, [OTHER]))[0] == "plain"
        assert (await asked(it, [FIRST]))[0] == "ruby"
        kept = await asked(it, [FIRST, ANSWER, OTHER])
        assert kept == ("ruby", "kept; gain=0.2000; price=none, unsure what is asked")
        assert (await asked(it, [FIRST, ANSWER, OTHER, ANSWER, GREEN]))[0] == "emerald"
        for row, said in (
            (2, "stays with ruby, because it is unsure what is asked"),
            (3, "leaves ruby: a gain of 0.700, and reading it again is worth 0.001"),
        ):
            record = await it.record(row)
            async with it.client.get(f"{it.gateway.url}/decisions/{record.decision_id}") as answer:
                assert said in (await answer.json())["why"]


async def test_conversations_of_one_user_are_apart() -> None:
    async with running(router=roomy()) as it:
        await asked(it, [FIRST], user="ann")
        await asked(it, [GREEN], user="ann")
        assert (await asked(it, [FIRST, LONG, OTHER], user="ann"))[0] == "ruby"


async def test_tool_loops_never_move() -> None:
    """Policy `wild` draws one of three experts for each request that nothing keeps."""
    async with running(router=roomy()) as it:
        first, note = await asked(it, [FIRST], model="auto:wild")
        assert note is None
        for rounds in range(1, 12):
            found = await asked(it, [FIRST, *[CALL, RESULT] * rounds], model="auto:wild")
            assert found[0] == first
            assert found[1].endswith("price=none, a tool loop")


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
        one.note("c", 1, "ruby")
        await until(lambda: client.get(f"{CONVERSATIONS}c") == b"1 ruby")
        two.note("c", 2, "plain")
        await until(lambda: client.get(f"{CONVERSATIONS}c") == b"2 plain")
    assert await one.last_expert("c", 1) == "ruby", "before the second turn"
    assert await one.last_expert("c", 2) == "plain", "within the second turn, or after it"
    assert await one.last_expert("unknown", 1) is None
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
    monkeypatch.setattr("coe.gateway.conversations.PAUSE_S", 0.0)
    nobody = Conversations(f"unix://{tmp_path}/nobody.sock")
    for name in ("a", "b", "c"):
        assert await nobody.last_expert(name, 1) is None
    await nobody.aclose()
    assert [record.name for record in caplog.records] == ["coe.gateway.conversations"]


async def test_a_note_that_was_not_sent_yet_is_sent_at_the_end(redis_url: str) -> None:
    one = Conversations(redis_url, is_shared=False)
    one.note("c", 1, "ruby")
    await one.aclose()
    with Redis.from_url(redis_url) as client:
        assert client.get(f"{CONVERSATIONS}c") == b"1 ruby"


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
