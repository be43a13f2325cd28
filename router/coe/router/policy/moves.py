"""The rule by which a conversation stays with its expert or moves to another. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from coe.router.config.policy import GAIN_FOR_DOUBLE_COST
from coe.router.policy.solved_policy import ActionDistribution
from coe.router.prices.cost import Price
from coe.router.types import DecisionReason, QueryFacts, Stay, StayRule

MAX_MOVES = 4
"""Moves of a conversation within its tool loops: two stalls, with the way back (ours)."""

TURNS_LEFT, STEPS_LEFT = 3, 8
"""Answers that are expected after this one, in a conversation and in a loop of tools. Conversations are ours; loops of
tau-bench's airline have 8.6 left after 5 answers and 6.6 after 10 (benchmarks/agents.py)."""

UNPRICED = Price({"input": 1.0, "cache_read": 0.1, "output": 5.0})
"""Rates where no expert has a price or a size: the usual ratios of price lists."""


class Move(NamedTuple):
    """A conversation's way from its last expert to another. `gain`: predicted quality of the other one less that of the
    last. `price`: what the way costs, as quality; None where nobody stated a price or a size."""

    gain: float
    price: float | None


def price_of_move(facts: QueryFacts, last: Price, other: Price) -> float:
    """Return what a move costs in units of quality, by `GAIN_FOR_DOUBLE_COST`; below 0 if it saves.

    The prefix cache of the last expert must be written once to the other's. If the other one is cheaper, each answer to
    come saves the difference; if it is more expensive, the policy has weighed that already. Both are divided by the
    cost of these answers at the more expensive expert. Half of what a turn adds counts as written by the expert: 41% is
    in tau-bench's loops.
    """
    tokens, cached = facts.prompt_tokens, facts.cached_tokens
    added = tokens - cached if cached else tokens / (facts.answers + 1)
    left = 1 + (STEPS_LEFT if facts.has_tools or facts.loop is not None else TURNS_LEFT)
    rates = [price.at(tokens) for price in (last, other)]
    staying, moving = (
        tokens * each["cache_read"] + added * each["cache_write"] + added / 2 * each["output"] for each in rates
    )
    lost = cached * (rates[1]["cache_write"] - rates[1]["cache_read"])
    dearer = max(staying, moving)
    return GAIN_FOR_DOUBLE_COST * (lost - left * max(staying - moving, 0.0)) / (left * dearer) if dearer else 0.0


def stay(facts: QueryFacts, move: Move, *, is_pinned: bool, is_unsure: bool) -> Stay:
    """Choose between a conversation's last expert, which could serve, and the planned one.

    Args:
        is_pinned: experts.yaml names the planned one. A tool loop moves by its price all the same.
        is_unsure: stage 1 is uncertain. Then the gain is that of an average query, while earlier asks say more of this
            one, so the conversation stays.
    """
    loop, price = facts.loop, move.price
    is_escalated = facts.last_reason == DecisionReason.ESCALATED
    if is_escalated and loop is not None and not loop.is_settled:
        rule, kept = StayRule.UNSETTLED, True
    elif loop is not None and facts.moves >= MAX_MOVES:
        rule, kept = StayRule.SPENT, True
    elif is_escalated:  # where nobody stated a price, the plan decides
        rule, kept = StayRule.SETTLED, price is not None and move.gain <= price
    elif loop is not None and facts.last_reason == DecisionReason.EXPLORED:
        rule, kept = StayRule.EXPLORED, True
    elif is_unsure and not is_pinned:
        rule, kept = StayRule.UNSURE, True
    elif loop is not None and move.gain < 0 and not loop.is_settled:
        rule, kept = StayRule.UNSETTLED, True
    else:
        price = price_of_move(facts, UNPRICED, UNPRICED) if price is None else price
        rule, kept = StayRule.PRICE, move.gain <= price and (loop is not None or not is_pinned)
    return held(facts, move._replace(price=price), rule, kept=kept)


def escalation(facts: QueryFacts, gain: float) -> Stay:
    """Choose between the last expert of a stalled loop and the strongest one, predicted to be better by `gain`. No
    price keeps the last expert: one that repeats an error gains nothing by a cache."""
    may_move = gain > 0 and facts.moves < MAX_MOVES
    return held(facts, Move(gain, None), StayRule.STALLED, kept=not may_move)


def beside_last(
    odds: ActionDistribution,
    quality: Mapping[int, float],
    facts: QueryFacts,
    last: int,
    rates: Sequence[Price] | None,
    *,
    is_unsure: bool,
) -> tuple[ActionDistribution, Stay]:
    """Return the odds of a conversation whose last expert could serve. An expert that is kept is certain, and is logged
    with a propensity of 1, as pins are.

    Args:
        quality: predicted of each eligible expert.
        rates: of the last and of the planned expert; None if experts.yaml has neither prices nor sizes.
    """
    strongest = max(odds.ranking, key=quality.__getitem__)
    is_stalled = facts.loop is not None and facts.loop.is_stalled
    if is_stalled:
        found = escalation(facts, quality[strongest] - quality[last])
    else:
        price = None
        if rates is not None or odds.wanted == last:
            price = price_of_move(facts, *(rates or (UNPRICED, UNPRICED)))
        move = Move(quality[odds.wanted] - quality[last], price)
        found = stay(facts, move, is_pinned=odds.reason is DecisionReason.PINNED, is_unsure=is_unsure)
    if not found.kept and facts.loop is None:
        return odds, found
    if found.kept:
        wanted, is_escalated = last, facts.last_reason == DecisionReason.ESCALATED
    else:
        wanted, is_escalated = strongest if is_stalled else odds.wanted, is_stalled
    reason = odds.reason if wanted == odds.wanted else DecisionReason.KEPT
    reason = DecisionReason.ESCALATED if is_escalated else reason
    certain = tuple(float(expert == wanted) for expert in odds.eligible)
    return replace(odds, wanted=wanted, reason=reason, probs=certain, explores=False), found


def held(facts: QueryFacts, move: Move, rule: StayRule, *, kept: bool) -> Stay:
    assert facts.last_expert is not None
    return Stay(
        last_expert=facts.last_expert,
        gain=move.gain,
        price=move.price if rule in (StayRule.PRICE, StayRule.SETTLED) else None,
        kept=kept,
        rule=rule,
        moves=facts.moves + (not kept and facts.loop is not None),
    )
