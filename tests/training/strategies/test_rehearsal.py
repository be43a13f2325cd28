"""Training plays many prompts at a time as the machines do one query at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.router.strategies.machines import SIGNALS, TELLS, Agree, Escalate, Sequential, Vote, Votes
from coe.router.strategies.types import Reply, Settled, Strategy
from coe.training.strategies.rehearsal import (
    Known,
    Played,
    passed,
    play_agree,
    play_escalation,
    play_sequence,
    play_vote,
    stage,
    stages,
)
from coe.training.strategies.vote_fit import posteriors
from tests.training.strategies.known_answers import known

LOGPROBS = np.where(
    np.random.default_rng(6).random((200, 4)) < 0.3, np.nan, np.random.default_rng(7).normal(size=(200, 4))
)
KNOWN = replace(known(200), logprobs=LOGPROBS)
RULES = np.random.default_rng(5).normal(size=(3, SIGNALS))
GATE = np.random.default_rng(8).normal(size=SIGNALS + TELLS)


def votes_of(data: Known, i: int) -> Votes:
    weights = data.weights[i].tolist()
    return Votes(tuple(weights[:-1]), weights[-1])


def reply(data: Known, i: int, expert: int) -> Reply:
    key = int(data.keys[i, expert])
    logprob = LOGPROBS[i, expert]
    return Reply(None if key < 0 else str(key), logprob=None if np.isnan(logprob) else float(logprob))


def check(played: Played, strategy_of: dict[int, Strategy]) -> None:
    for i, strategy in strategy_of.items():
        seen: dict[int, Reply] = {}
        while not isinstance(step := strategy.step(seen), Settled):
            seen |= {expert: reply(KNOWN, i, expert) for expert in step.experts}
        assert sorted(seen) == np.flatnonzero(played.asked[i]).tolist(), i
        assert step.expert is not None
        assert played.score[i] == KNOWN.scores[i, step.expert], i


def test_posteriors_are_those_of_votes() -> None:
    found = posteriors(KNOWN.keys, KNOWN.weights)
    for i in range(50):
        probs = votes_of(KNOWN, i).posterior({e: reply(KNOWN, i, e) for e in range(4)})
        assert {str(a): p for a, p in enumerate(found[i]) if p > 0} == pytest.approx(probs)


def test_signals_are_those_of_votes() -> None:
    found = stage(KNOWN, KNOWN.fixed((2, 0, 3)), 2).signals
    for i in range(50):
        replies = {e: reply(KNOWN, i, e) for e in (2, 0)}
        assert found[i] == pytest.approx(votes_of(KNOWN, i).signals(replies, (3,)))


def test_a_vote_is_played_as_the_machine_does() -> None:
    check(play_vote(KNOWN, (3, 0, 1)), {i: Vote((3, 0, 1), votes_of(KNOWN, i)) for i in range(200)})


def test_an_agreement_is_played_as_the_machine_does() -> None:
    check(play_agree(KNOWN, 0, 2, 3), {i: Agree((0, 2), 3, votes_of(KNOWN, i)) for i in range(200)})


@pytest.mark.parametrize("by_weight", [False, True])
def test_a_sequence_is_played_as_the_machine_does(by_weight: bool) -> None:
    order = KNOWN.by_weight if by_weight else KNOWN.fixed((3, 1, 0, 2))
    played = play_sequence(KNOWN, order, stages(KNOWN, order), RULES)
    assert len(set(played.asked.sum(axis=1))) > 2
    rules = tuple(tuple(rule) for rule in RULES.tolist())
    check(played, {i: Sequential(tuple(order[i].tolist()), rules, votes_of(KNOWN, i)) for i in range(200)})


@pytest.mark.parametrize("experts", [(0, 3), (0, 2, 3)])
def test_an_escalation_is_played_as_the_machine_does(experts: tuple[int, ...]) -> None:
    played = play_escalation(KNOWN, experts, passed(KNOWN, experts), GATE)
    assert len(set(played.asked.sum(axis=1))) > 1
    second = experts[1] if len(experts) == 3 else None
    rule = tuple(GATE.tolist())
    check(played, {i: Escalate(0, 3, rule, votes_of(KNOWN, i), second) for i in range(200)})
