"""Equivalence of two routers: they decide alike, so that putting one in the other's place changes nothing.

Alike means that for every query compared, under every policy, both name the same category and want the same expert.
What they predict of quality, and so the order in which others stand in for an expert that is down, and the shares by
which others are explored, may differ: every new rating moves them a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from router.pipeline import Router
from router.types import FloatArray, QueryBatch
from training.log_answers import AskedAnswers
from training.router_comparison import BATCH_ROWS, batch_of, decisions_of, logged_batches


def decide_alike(one: Router, other: Router, texts: Sequence[str], embeddings: FloatArray) -> bool:
    """Returns whether both know the same experts and decide these queries alike under every policy.

    Args:
        embeddings: (n, d) of the texts, by the encoder of both.
    """
    if set(one.experts) != set(other.experts) or set(one.policies) != set(other.policies):
        return False
    return all(
        are_alike(one, other, batch_of(texts[start:end], embeddings[start:end]), policy, ())
        for policy in one.policies
        for start, end in pairwise((*range(0, len(texts), BATCH_ROWS), len(texts)))
    )


def decide_log_alike(one: Router, other: Router, asked: AskedAnswers) -> bool:
    """Returns whether both decide logged queries alike, under the policy and with the experts that each had then."""
    return all(are_alike(one, other, batch, policy, excluded) for _, batch, policy, excluded in logged_batches(asked))


def are_alike(one: Router, other: Router, batch: QueryBatch, policy: str, excluded: Sequence[str]) -> bool:
    """Returns whether both decide the queries alike, without the excluded experts."""
    made = (decisions_of(router, batch, policy, set(router.experts) - set(excluded)) for router in (one, other))
    return all((a.category, a.ranking[0]) == (b.category, b.ranking[0]) for a, b in zip(*made, strict=True))
