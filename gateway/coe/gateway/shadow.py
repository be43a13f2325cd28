"""Decisions of a router on trial, computed alongside the request, which never waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from coe.base.errors import ArtifactError, ConfigError, NoEligibleExpertError
from coe.decision_log.decision_record import ShadowDecision
from coe.router.pipeline import Router
from coe.router.types import FloatArray, Query, RoutingDecision

CANDIDATE_FAULTS = (ArithmeticError, ArtifactError, AttributeError, ConfigError, LookupError, TypeError, ValueError)
"""Errors that a router that does not fit raises while it decides. That no expert can serve is not among
them: the request may ask for too much."""

MAX_WAITING = 64
"""Shadow decisions that wait at most; more are left out, so that a slow candidate costs no memory."""


@dataclass(frozen=True)
class ShadowAsk:
    """The live router's query, which the candidate decides too; `vector` (1, d) is of the live router's encoder."""

    candidate: Router
    live: Router
    decision: RoutingDecision
    query: Query
    alive: frozenset[str]
    vector: FloatArray


class Shadows:
    """One thread that makes shadow decisions in order."""

    def __init__(self, seed: int | None) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coe-shadow")
        self._rng = np.random.default_rng(seed)  # of this thread only
        self._lock = threading.Lock()
        self._waiting = 0
        self.left_out = 0

    def start(
        self, ask: ShadowAsk, on_fault: Callable[[str, Exception], None]
    ) -> Callable[[], ShadowDecision | None] | None:
        """Begins; gives the way to its result, or None when too many wait already.

        Args:
            on_fault: called where the candidate cannot decide.
        """
        with self._lock:
            if self._waiting >= MAX_WAITING:
                self.left_out += 1
                return None
            self._waiting += 1
        try:
            future = self._thread.submit(self._decide, ask, on_fault)
        except RuntimeError:  # the gateway is stopping
            return None
        future.add_done_callback(self._ended)
        return partial(self._result, future)

    def _result(self, future: Future[ShadowDecision | None]) -> ShadowDecision | None:
        """The decision; None when it could not be made, or is not ready: then it is counted as left out."""
        if future.done() and not future.cancelled():
            return future.result()
        with self._lock:
            self.left_out += 1
        return None

    def _ended(self, _: Future[ShadowDecision | None]) -> None:
        with self._lock:
            self._waiting -= 1

    def _decide(self, ask: ShadowAsk, on_fault: Callable[[str, Exception], None]) -> ShadowDecision | None:
        try:
            return shadow_decision(ask, self._rng)
        except NoEligibleExpertError:
            return None
        except CANDIDATE_FAULTS as error:
            on_fault(ask.candidate.version, error)
            return None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def shadow_decision(ask: ShadowAsk, rng: np.random.Generator) -> ShadowDecision:
    """The candidate's decision on the same query; the embedding is taken over where both encoders are the same.

    Raises: as `Router.decide` does.
    """
    is_same = ask.candidate.encoder.fingerprint == ask.live.encoder.fingerprint
    vector = ask.vector if is_same else ask.candidate.features(ask.query).vectors
    policy = ask.decision.policy
    made = ask.candidate.decide(ask.query, policy=policy, alive=ask.alive, rng=rng, embedding=vector)
    probs = dict(zip(made.eligible, made.eligible_probs, strict=True))
    qualities = dict(zip(made.eligible, made.predicted_quality, strict=True))
    return ShadowDecision(
        router_version=made.router_version,
        expert=made.expert,
        category=made.category,
        live_expert_prob=min(probs.get(ask.decision.expert, 0.0), 1.0),
        predicted_quality=qualities[made.expert],
    )
