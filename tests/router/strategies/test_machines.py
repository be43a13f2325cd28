"""Strategies: what they ask, when they end, what they serve."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.router.strategies.machines import SIGNALS, Agree, Escalate, Sequential, Vote, Votes
from coe.router.strategies.types import Ask, Replies, Reply, Settled, Strategy

M = 4
PASS, GO_ON = (-1.0, *[0.0] * (SIGNALS - 1)), (1.0, *[0.0] * (SIGNALS - 1))
UNSURE = (0.8, -1.0, *[0.0] * (SIGNALS - 2))
"""Goes on below a posterior of 0.8."""

numbers = st.floats(-3, 3, allow_nan=False)
votes = st.builds(
    Votes,
    weights=st.tuples(*[numbers] * M),
    doubt=numbers,
)
replies = st.builds(
    Reply,
    key=st.sampled_from([None, "a", "b", "c"]),
).flatmap(lambda reply: st.sampled_from([reply, reply, reply, Reply(is_failure=True)]))
rules = st.sampled_from([PASS, GO_ON, UNSURE])
strategies = st.one_of(
    st.builds(Vote, st.just((2, 0, 1)), votes),
    st.builds(Agree, st.just((0, 1)), st.just(3), votes),
    st.builds(Sequential, st.just((1, 3, 0)), st.tuples(rules, rules), votes),
    st.builds(Escalate, st.just(0), st.just(3), rules, votes, st.sampled_from([None, 1])),
)


def run(strategy: Strategy, answers: Replies) -> tuple[Settled, list[int]]:
    """The end, and who was asked, in order."""
    seen: dict[int, Reply] = {}
    while True:
        step = strategy.step(seen)
        if isinstance(step, Settled):
            return step, list(seen)
        assert step.experts
        assert not set(step.experts) & set(seen)
        seen |= {expert: answers[expert] for expert in step.experts}


def answers_of(listed: list[Reply]) -> Replies:
    return dict(enumerate(listed))


@given(strategy=strategies, listed=st.lists(replies, min_size=M, max_size=M))
def test_it_ends_after_asking_nobody_twice_and_serves_a_reply(strategy: Strategy, listed: list[Reply]) -> None:
    end, asked = run(strategy, answers_of(listed))
    assert set(asked) <= set(strategy.experts)
    assert len(set(strategy.experts)) == len(strategy.experts)
    served = [listed[expert] for expert in asked if not listed[expert].is_failure]
    if end.expert is None:
        assert not served
    else:
        assert end.expert in asked
        assert not listed[end.expert].is_failure
        assert listed[end.expert].key is not None or all(reply.key is None for reply in served)
        assert end.confidence is None or 0 <= end.confidence <= 1
        voted = sum(r.key == listed[end.expert].key for r in served if r.key is not None)
        assert end.agreed == voted


@given(strategy=strategies)
def test_where_all_say_the_same_that_is_served(strategy: Strategy) -> None:
    end, asked = run(strategy, answers_of([Reply("a")] * M))
    assert end.expert in asked
    assert end.agreed == len(asked)


@given(strategy=strategies, listed=st.lists(replies, min_size=M, max_size=M), order=st.permutations(range(M)))
def test_a_step_does_not_depend_on_the_order_of_replies(
    strategy: Strategy, listed: list[Reply], order: list[int]
) -> None:
    end, asked = run(strategy, answers_of(listed))
    seen = {expert: listed[expert] for expert in order if expert in asked}
    assert strategy.step(seen) == end


@given(own=votes, listed=st.lists(replies, min_size=M, max_size=M), order=st.permutations(range(M)))
def test_a_vote_does_not_depend_on_the_order_of_experts(own: Votes, listed: list[Reply], order: list[int]) -> None:
    answers = answers_of(listed)
    first, second = (run(Vote(tuple(experts), own), answers)[0] for experts in (range(M), order))
    assert (first.confidence, first.agreed) == (second.confidence, second.agreed)
    assert any(reply.key for reply in listed) is False or first == second


@given(own=votes, listed=st.lists(replies, min_size=M, max_size=M))
def test_a_posterior_is_a_distribution_with_room_for_all_being_wrong(own: Votes, listed: list[Reply]) -> None:
    probs = own.posterior(answers_of(listed))
    assert set(probs) == {reply.key for reply in listed} - {None}
    assert all(0 < p < 1 for p in probs.values())
    assert sum(probs.values()) < 1
    assert list(probs.values()) == sorted(probs.values(), reverse=True)


def test_naive_bayes_gives_the_posterior_worked_out_by_hand() -> None:
    """Three experts of accuracies 0.6, 0.5, 0.5 over 4 options; the first says a, the others say b, c and d nobody."""
    accuracies, options = (0.6, 0.5, 0.5), 4
    weights = tuple(math.log(q * (options - 1) / (1 - q)) for q in accuracies)
    own = Votes(weights, math.log(options - 2))
    found = own.posterior({0: Reply("a"), 1: Reply("b"), 2: Reply("b")})
    a, b, other = 0.6 * (1 / 6) ** 2, 0.4 / 3 * 0.5**2, 0.4 / 3 * (1 / 6) ** 2
    total = a + b + 2 * other
    assert found == pytest.approx({"b": b / total, "a": a / total})


def test_a_sequence_stops_when_it_is_sure_enough() -> None:
    own = Votes((1.0, 1.0, 1.0), 0.0)
    strategy = Sequential((0, 1, 2), (UNSURE, UNSURE), own)
    assert strategy.step({0: Reply("a")}) == Ask((1,))  # 0.73
    end = strategy.step({0: Reply("a"), 1: Reply("a")})
    assert end == Settled(0, pytest.approx(1 / (1 + math.exp(-2))), 2)
    assert strategy.step({0: Reply("a"), 1: Reply("b")}) == Ask((2,))


def test_a_sequence_asks_nobody_who_could_change_nothing() -> None:
    strategy = Sequential((0, 1, 2), (GO_ON, GO_ON), Votes((1.0, 1.0, 1.5), 0.0))
    assert strategy.step({0: Reply("a")}) == Ask((1,))
    assert isinstance(strategy.step({0: Reply("a"), 1: Reply("a")}), Settled)
    assert strategy.step({0: Reply("a"), 1: Reply("b")}) == Ask((2,))


def test_two_cheap_experts_of_one_answer_spare_the_strong_one() -> None:
    own = Votes((1.0, 1.0, 1.0), 0.0)
    strategy = Escalate(0, 2, GO_ON, own, second=1)
    assert strategy.step({0: Reply("a")}) == Ask((1,))
    assert isinstance(strategy.step({0: Reply("a"), 1: Reply("a")}), Settled)
    assert strategy.step({0: Reply("a"), 1: Reply("b")}) == Ask((2,))
    end = strategy.step({0: Reply("a"), 1: Reply("b"), 2: Reply("c")})
    assert isinstance(end, Settled)
    assert end.expert == 2


def test_a_probe_that_fails_is_no_answer() -> None:
    own = Votes((1.0, 1.0, 1.0), 0.0)
    strategy = Agree((0, 1), 2, own)
    assert strategy.step({0: Reply("a"), 1: Reply(is_failure=True)}) == Ask((2,))
    end = strategy.step({0: Reply("a"), 1: Reply(is_failure=True), 2: Reply(is_failure=True)})
    assert isinstance(end, Settled)
    assert end.expert == 0
    assert strategy.step({e: Reply(is_failure=True) for e in range(3)}) == Settled(None)
