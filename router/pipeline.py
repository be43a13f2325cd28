"""The router: encode -> classify -> uncertainty -> eligible -> score -> decide. Pure but for a remote encoder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.config import ExplorationConfig
from router.errors import ConfigError, NoEligibleExpertError, allowed_values
from router.policy import MapSolution, exploration_probs
from router.preference import Preference
from router.protocols import CategoryClassifier, Encoder, ExpertScorer
from router.types import (
    GENERAL,
    CategoryProbs,
    DecisionReason,
    FloatArray,
    Query,
    QueryBatch,
    QueryFacts,
    RoutingDecision,
)
from router.uncertainty import Uncertainty, apply_temperature


@dataclass(frozen=True)
class Capabilities:
    """What an expert can take. The default takes everything."""

    context_tokens: int | None = None
    supports_images: bool = True
    supports_tools: bool = True
    supports_json: bool = True

    def lacks(self, facts: QueryFacts) -> str | None:
        """Why this expert cannot serve a request, or None."""
        if facts.has_image and not self.supports_images:
            return "does not take images"
        if facts.has_tools and not self.supports_tools:
            return "does not take tools"
        if facts.wants_json and not self.supports_json:
            return "does not guarantee JSON"
        needed = facts.prompt_tokens + (facts.max_output_tokens or 0)
        if self.context_tokens is not None and needed > self.context_tokens:
            return f"context of {self.context_tokens} tokens is less than the {needed} needed"
        return None


@dataclass(frozen=True)
class Policy:
    """A solved policy: the map for its budgets, its pins (row -> expert number) and its exploration.

    With a `preference` every query is judged by itself, and the map is what is shown, pinned and explained.
    """

    solution: MapSolution
    pins: Mapping[int, int] = field(default_factory=dict)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    preference: Preference | None = None

    def expert_of(self, row: int) -> tuple[int, DecisionReason]:
        """The expert for a category, where a pin of experts.yaml wins over the learned map."""
        if row in self.pins:
            return self.pins[row], DecisionReason.PINNED
        return int(self.solution.expert_of[row]), DecisionReason.MAP

    def worth(self, quality: FloatArray) -> NDArray[np.floating]:
        """(m,) by which experts are compared on one query with predicted quality (m,)."""
        return quality if self.preference is None else self.preference.utility(quality)

    def wanted(self, row: int, worth: NDArray[np.floating], eligible: Sequence[int]) -> tuple[int, DecisionReason]:
        """The eligible expert that the policy wants for a query of a category."""
        expert, reason = self.expert_of(row)
        if reason is not DecisionReason.PINNED and self.preference is not None:
            expert, reason = max(eligible, key=lambda e: worth[e]), DecisionReason.QUERY
            if not self.preference.hosted[expert]:
                reason = DecisionReason.NEXT_BEST
        if expert not in eligible:
            expert, reason = max(eligible, key=lambda e: worth[e]), DecisionReason.NEXT_BEST
        return expert, reason


@dataclass(frozen=True)
class Draw:
    """The chosen expert's number, why, and the probability of each eligible expert, in their order."""

    expert: int
    reason: DecisionReason
    probs: tuple[float, ...]


def draw_expert(
    policy: Policy, row: int, eligible: Sequence[int], quality: FloatArray, rng: np.random.Generator
) -> Draw:
    """The policy's expert for a category, or the best eligible one where that cannot serve, or an explored one."""
    wanted, reason = policy.wanted(row, policy.worth(quality), eligible)
    explore = policy.exploration
    position = eligible.index(wanted)
    probs = exploration_probs(quality[list(eligible)], position, explore.epsilon, explore.softmax_temperature)
    drawn = position if explore.epsilon == 0 else int(rng.choice(len(eligible), p=probs))
    if drawn != position:
        reason = DecisionReason.EXPLORED
    return Draw(eligible[drawn], reason, tuple(float(p) for p in probs))


@dataclass(frozen=True)
class Judgement:
    """Stage 1 on a batch. All (n,): most likely category's number, its probability, uncertainty, and the decided row
    (the most likely category, or `general`, which is row k, when uncertain)."""

    likely: np.ndarray[tuple[int], np.dtype[np.int64]]
    confidence: FloatArray
    uncertainty: FloatArray
    rows: np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Router:
    """A loaded router: immutable, safe to share between threads, replaced as a whole on a hot swap."""

    version: str
    encoder: Encoder
    classifier: CategoryClassifier
    temperature: float
    uncertainty: Uncertainty
    scorer: ExpertScorer
    experts: tuple[str, ...]
    policies: Mapping[str, Policy]
    capabilities: Mapping[str, Capabilities]

    @property
    def categories(self) -> tuple[str, ...]:
        """The k learned categories, then `general`: the rows of the map."""
        return (*self.classifier.categories_, GENERAL)

    def expert_of(self, policy: str = "default") -> dict[str, str]:
        """The map in force: category to expert, pins included."""
        solved = self.policy(policy)
        return {name: self.experts[solved.expert_of(row)[0]] for row, name in enumerate(self.categories)}

    def policy(self, name: str) -> Policy:
        if name not in self.policies:
            raise ConfigError(f"unknown policy '{name}'{allowed_values(name, self.policies)}")
        return self.policies[name]

    def decide(
        self,
        query: Query,
        *,
        rng: np.random.Generator,
        policy: str = "default",
        alive: Collection[str] | None = None,
        embedding: FloatArray | None = None,
    ) -> RoutingDecision:
        """Decides one query.

        Args:
            alive: experts that can be called now; None means all.
            embedding: (1, d) when the caller has it already.

        Raises:
            ConfigError: unknown policy.
            NoEligibleExpertError: every expert lacks something this request needs, or is down.
        """
        vectors = self.encoder.encode([query.text]) if embedding is None else embedding
        return self.decide_batch(QueryBatch((query,), vectors), rng=rng, policy=policy, alive=alive)[0]

    def decide_batch(
        self,
        batch: QueryBatch,
        *,
        rng: np.random.Generator,
        policy: str = "default",
        alive: Collection[str] | None = None,
    ) -> tuple[RoutingDecision, ...]:
        """Decides n queries in order; equal to deciding one by one with the same `rng`. Raises as `decide` does."""
        self.policy(policy)  # refuses an unknown name before any work
        probs = self.predict_categories(batch.embeddings)
        judged = self.judge(batch.embeddings, probs)
        quality = self.scorer.score(batch, probs, [int(row) for row in judged.rows]).quality
        return tuple(
            self.decision(query, judged, i, quality[i], policy, self.excluded(query.facts, alive), rng)
            for i, query in enumerate(batch.queries)
        )

    def predict_categories(self, embeddings: FloatArray) -> CategoryProbs:
        """Calibrated probabilities (n, k)."""
        raw = self.classifier.predict_proba(embeddings)
        return CategoryProbs(raw.categories, apply_temperature(raw.probs, self.temperature))

    def judge(self, embeddings: FloatArray, probs: CategoryProbs) -> Judgement:
        """Stage 1: the most likely category, or `general` where the classifier is unsure."""
        likely = probs.probs.argmax(axis=1)
        uncertainty = self.uncertainty.score(embeddings, probs.probs)
        rows = np.where(uncertainty > self.uncertainty.threshold, len(probs.categories), likely)
        return Judgement(likely, probs.probs[np.arange(len(likely)), likely], uncertainty, rows)

    def excluded(self, facts: QueryFacts, alive: Collection[str] | None) -> dict[str, str]:
        """Experts that cannot serve a request, with what each lacks."""
        reasons: dict[str, str] = {}
        for expert in self.experts:
            lack = self.capabilities[expert].lacks(facts)
            if lack is None and alive is not None and expert not in alive:
                lack = "is not reachable"
            if lack is not None:
                reasons[expert] = lack
        return reasons

    def decision(
        self,
        query: Query,
        judged: Judgement,
        i: int,
        quality: FloatArray,
        policy_name: str,
        excluded: Mapping[str, str],
        rng: np.random.Generator,
    ) -> RoutingDecision:
        """Stage 2 for query i of a judged batch; `quality` (m,)."""
        eligible = [e for e, name in enumerate(self.experts) if name not in excluded]
        if not eligible:
            raise NoEligibleExpertError(excluded)
        row = int(judged.rows[i])
        policy = self.policy(policy_name)
        draw, worth = draw_expert(policy, row, eligible, quality, rng), policy.worth(quality)
        others = [e for e in eligible if e != draw.expert]
        is_fallback = self.categories[row] == GENERAL
        return RoutingDecision(
            expert=self.experts[draw.expert],
            category=self.categories[row],
            confidence=float(min(judged.confidence[i], 1.0)),
            is_fallback=is_fallback,
            reason=DecisionReason.UNCERTAIN if is_fallback and draw.reason is DecisionReason.MAP else draw.reason,
            likely_category=self.categories[int(judged.likely[i])],
            uncertainty=float(judged.uncertainty[i]),
            runner_up=self.experts[max(others, key=lambda e: worth[e])] if others else None,
            eligible=tuple(self.experts[e] for e in eligible),
            eligible_probs=draw.probs,
            predicted_quality=tuple(min(max(float(quality[e]), 0.0), 1.0) for e in eligible),
            excluded=dict(excluded),
            propensity=draw.probs[eligible.index(draw.expert)],
            policy=policy_name,
            router_version=self.version,
        )

    def failover(self, decision: RoutingDecision, failed: Collection[str]) -> str | None:
        """The eligible expert of highest predicted quality that has not failed, or None."""
        left = [
            (quality, name)
            for name, quality in zip(decision.eligible, decision.predicted_quality, strict=True)
            if name not in failed
        ]
        return max(left)[1] if left else None


def explicit_decision(
    expert: str,
    facts: QueryFacts,
    capabilities: Mapping[str, Capabilities],
    alive: Collection[str] | None = None,
    *,
    version: str = "none",
) -> RoutingDecision:
    """The decision when the client named the expert: nothing is classified, the capability mask still holds.

    Needs no router; `version` is the one in force, if there is one.

    Raises:
        NoEligibleExpertError: that expert lacks something, or is down.
    """
    lack = capabilities[expert].lacks(facts) if expert in capabilities else None
    if lack is None and alive is not None and expert not in alive:
        lack = "is not reachable"
    if lack is not None:
        raise NoEligibleExpertError({expert: lack})
    return RoutingDecision(
        expert=expert,
        category=GENERAL,
        confidence=0.0,
        is_fallback=False,
        reason=DecisionReason.EXPLICIT,
        likely_category=GENERAL,
        uncertainty=0.0,
        eligible=(expert,),
        eligible_probs=(1.0,),
        predicted_quality=(0.0,),
        propensity=1.0,
        policy="explicit",
        router_version=version,
    )
