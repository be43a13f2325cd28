"""The router: encode -> classify -> uncertainty -> eligible -> score -> decide. Pure but for a remote encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from coe.base.errors import ConfigError, NoEligibleExpertError, allowed_values
from coe.router.capabilities import FOR_NOW, NOT_ALLOWED, NOT_REACHABLE, Capabilities, why_away
from coe.router.policy.map_solver import ExpertCosts
from coe.router.policy.moves import UNPRICED, beside_last
from coe.router.policy.solved_policy import ActionDistribution, SolvedPolicy, action_distribution
from coe.router.prices.cost import Price
from coe.router.protocols import CategoryClassifier, Encoder, ExpertScorer
from coe.router.reading.features import AskDetector, Features, Reading, features_of, read_query, unknown_language
from coe.router.reading.uncertainty import Uncertainty, calibrated, calibrated_row
from coe.router.strategies.agree import Agree
from coe.router.strategies.learned import Ways
from coe.router.types import (
    GENERAL,
    CategoryProbs,
    DecisionReason,
    FloatArray,
    Query,
    QueryBatch,
    QueryFacts,
    RoutingDecision,
    View,
)

TOP_CATEGORIES = 5
"""Categories whose probabilities a decision keeps."""

MAX_CACHED = 256
"""Prospects that a router keeps; one of 100 experts takes some 10 kB."""


class Classification(NamedTuple):
    """Stage 1 on one query.

    `probs` has shape (k,); `likely` is the number of the most likely category and `confidence` its probability. `row`
    is the decided row: the most likely category, or k, which is `general`, if the router is uncertain.
    """

    probs: Sequence[float]
    likely: int
    confidence: float
    uncertainty: float
    row: int


@dataclass(frozen=True)
class CachedDecision:
    """The part of a decision that many queries share: the odds of the draw, and a decision whose other fields vary. It
    depends on the predicted quality and on the experts that cannot serve, not on the query itself."""

    odds: ActionDistribution
    usual: RoutingDecision


@dataclass(frozen=True)
class Router:
    """A loaded router: immutable, safe to share between threads, replaced as a whole on a hot swap.

    `costs` are shown with a decision; None where they are not known. `prices` weigh moves of conversations; empty where
    they are not known. `mix` (k,) is how many times as frequent each category is in the traffic as among the labelled
    queries; None: as frequent.
    `ways` is None where training knew no answers: then every policy asks one expert. `letters` are those of the
    labelled queries, as `known_letters` numbers them; none where training did not look.
    `part_classifier` reads asks and tasks beside material; None: `classifier` does.
    """

    version: str
    encoder: Encoder
    classifier: CategoryClassifier
    temperature: float
    uncertainty: Uncertainty
    scorer: ExpertScorer
    experts: tuple[str, ...]
    policies: Mapping[str, SolvedPolicy]
    capabilities: Mapping[str, Capabilities]
    costs: ExpertCosts | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    ways: Ways | None = None
    mix: FloatArray | None = None
    detector: AskDetector | None = None
    part_classifier: CategoryClassifier | None = None
    letters: frozenset[int] = frozenset()

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The k learned categories, then `general`: the rows of the map."""
        return (*self.classifier.categories_, GENERAL)

    def without_exploration(self) -> Router:
        """Return the same router without exploration, whose decisions repeat."""
        return replace(self, policies={name: replace(each, exploration=None) for name, each in self.policies.items()})

    def expert_of(self, policy: str = "default") -> dict[str, str]:
        """Return the map in force: category to expert, pins included."""
        solved = self.policy(policy)
        return {name: self.experts[solved.expert_of(row)[0]] for row, name in enumerate(self.categories)}

    def policy(self, name: str) -> SolvedPolicy:
        if name not in self.policies:
            raise ConfigError(f"unknown policy '{name}'{allowed_values(name, self.policies)}")
        return self.policies[name]

    def strategy(self, policy: str, category: str) -> Agree | None:
        """Return the strategy for queries of a category; None if one expert serves them."""
        plan = self.policy(policy).plan
        way = -1 if plan is None else int(plan.choice_of[self.categories.index(category)]) - len(self.experts)
        return None if self.ways is None or way < 0 else self.ways.strategy(way)

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Name of a policy -> identity of what decides beside artifact and query: experts.yaml, as it was solved. A
        decision can only be made again where this is the same."""
        limits = (float(self.uncertainty.threshold), sorted(self.uncertainty.thresholds.items()))
        shared = repr((self.experts, limits, sorted(self.capabilities.items()), sorted(self.prices.items())))
        return {
            name: hashlib.sha256(f"{shared} {policy.fingerprint}".encode()).hexdigest()[:16]
            for name, policy in self.policies.items()
        }

    @cached_property
    def expected(self) -> tuple[list[list[float]], list[list[float | None]]]:
        """Cost of a query in USD and its latency in milliseconds, per category (k+1) and expert (m); None: unknown."""
        shape = (len(self.categories), len(self.experts))
        if self.costs is None:
            return np.zeros(shape).tolist(), [[None] * shape[1] for _ in range(shape[0])]
        cost, wait = (np.broadcast_to(each, shape).tolist() for each in (self.costs.cost_usd, self.costs.latency_ms))
        return cost, [[ms or None for ms in row] for row in wait]

    def embed(self, text: str, earlier: Sequence[str] = ()) -> FloatArray:
        """Encode a text without a system prompt as a vector of shape (1, d); errors are those of `features`."""
        return self.features(Query("", text, earlier=tuple(earlier))).vectors

    def features(self, query: Query) -> Features:
        """Return the features that a query is decided from; errors are those of `read`."""
        reading = self.read(query)
        language = unknown_language(reading.part or query.text, self.letters)
        return features_of(reading.vector, reading.view, language)

    def read(self, query: Query) -> Reading:
        """Read a query: its ask, the earlier asks that it needs, and the task in its system prompt. It raises
        BackendError if a remote encoder does not answer."""
        return read_query(query, self.encoder.encode, self.detector, self.top_probability)

    def top_probability(self, embedding: FloatArray) -> float:
        """Return the calibrated probability of the most likely category of one embedding of shape (1, d)."""
        return max(self._row_of_probs(embedding))

    def decide(
        self,
        query: Query,
        *,
        rng: np.random.Generator,
        policy: str = "default",
        alive: Collection[str] | None = None,
        embedding: FloatArray | None = None,
        seed: int | None = None,
    ) -> RoutingDecision:
        """Decide one query.

        Args:
            alive: experts that can be called now; None means all.
            embedding: of shape (1, d), if the caller has it already; the query's facts then say what it was read from.
            seed: of an earlier draw, to repeat it; None draws anew.

        Raises:
            ConfigError: unknown policy.
            NoEligibleExpertError: every expert lacks something this request needs, is down, or is barred by the policy.
        """
        self.policy(policy)  # refuses an unknown name before any work
        if embedding is None:
            embedding, _, view, language = self.features(query)
            query = query.read_from(view, language)
        classified, pin = self._in_language(policy, query.facts, self.judge_one(embedding, query.facts.view))
        quality = self._quality(query, embedding, classified)
        cached = self.cached_decision(policy, classified.row, quality, self.excluded(query.facts, alive), pin)
        return self.decision(query, classified, cached, rng, seed)

    def decide_batch(
        self,
        batch: QueryBatch,
        *,
        rng: np.random.Generator,
        policy: str = "default",
        alive: Collection[str] | None = None,
    ) -> tuple[RoutingDecision, ...]:
        """Decide n queries in order, as one by one with the same `rng`, but for the last digits of probabilities.
        Errors are those of `decide`."""
        self.policy(policy)
        views = [query.facts.view for query in batch.queries]
        probs = self.predict_categories(batch.embeddings, views)
        judged = self.judge(batch.embeddings, probs, views)
        placed = [
            self._in_language(policy, query.facts, each) for query, each in zip(batch.queries, judged, strict=True)
        ]
        quality = self.scorer.score(batch, probs, [classified.row for classified, _ in placed]).quality
        found = []
        for query, (classified, pin), own in zip(batch.queries, placed, quality, strict=True):
            cached = self.cached_decision(policy, classified.row, own, self.excluded(query.facts, alive), pin)
            found.append(self.decision(query, classified, cached, rng))
        return tuple(found)

    def predict_categories(self, embeddings: FloatArray, views: Sequence[View] | None = None) -> CategoryProbs:
        """Return calibrated probabilities of shape (n, k).

        Args:
            views: what each embedding was read from; None: the whole request.
        """
        raw = self.classifier.predict_proba(embeddings)
        probs, is_part = raw.probs, np.array([view is not View.WHOLE for view in views or ()], dtype=bool)
        if self.part_classifier is not None and is_part.any():
            probs[is_part] = self.part_classifier.predict_proba(embeddings[is_part]).probs
        return CategoryProbs(raw.categories, calibrated(probs, self.temperature, self.mix))

    def judge(
        self, embeddings: FloatArray, probs: CategoryProbs, views: Sequence[View] | None = None
    ) -> list[Classification]:
        """Stage 1: the most likely category, or `general` where the classifier is unsure. `views` (n,) are what the
        embeddings were read from; None: whole messages."""
        likely = probs.probs.argmax(axis=1)
        uncertainty = self.uncertainty.score(embeddings, probs.probs, views)
        thresholds = self.uncertainty.threshold if views is None else [*map(self.uncertainty.threshold_of, views)]
        rows = np.where(uncertainty > thresholds, len(probs.categories), likely)
        columns = (probs.probs, likely, probs.probs.max(axis=1), uncertainty, rows)
        return list(map(Classification._make, zip(*(column.tolist() for column in columns), strict=True)))

    def judge_one(self, embedding: FloatArray, view: View = View.WHOLE) -> Classification:
        """Classify one embedding of shape (1, d), as `judge` does."""
        probs = self._row_of_probs(embedding, view)
        confidence, uncertainty = max(probs), self.uncertainty.score_row(embedding, probs, view)
        likely = probs.index(confidence)
        row = len(probs) if uncertainty > self.uncertainty.threshold_of(view) else likely
        return Classification(probs, likely, confidence, uncertainty, row)

    def _in_language(
        self, policy: str, facts: QueryFacts, classified: Classification
    ) -> tuple[Classification, int | None]:
        """Return the classification, and the policy's expert for languages that stage 1 has not learned, or None. A
        query in such a language belongs to `general`, however sure stage 1 is."""
        pin = None if facts.unknown_language is None else self.policy(policy).unknown_languages
        return (classified, None) if pin is None else (classified._replace(row=len(classified.probs)), pin)

    def _row_of_probs(self, embedding: FloatArray, view: View = View.WHOLE) -> list[float]:
        """Return calibrated probabilities of shape (k,) for one embedding of shape (1, d)."""
        classifier = self.classifier if view is View.WHOLE else self.part_classifier or self.classifier
        return calibrated_row(classifier.predict_proba(embedding).probs[0].tolist(), self.temperature, self.mix)

    def _quality(self, query: Query, embedding: FloatArray, classified: Classification) -> FloatArray:
        """Return each expert's predicted quality (m,) for one query with an embedding of shape (1, d)."""
        found = self._map_quality.get(classified.row)
        if found is None:
            probs = CategoryProbs(self.classifier.categories_, np.array([classified.probs], dtype=np.float32))
            found = self.scorer.score(QueryBatch((query,), embedding), probs, [classified.row]).quality[0]
            if not self.scorer.decides_by_query:
                self._map_quality[classified.row] = found
        return found

    @cached_property
    def _map_quality(self) -> dict[int, FloatArray]:
        """Row -> quality (m,) that is predicted of each of its queries, where the scorer decides by category alone."""
        return {}

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(self.experts)

    @cached_property
    def _kinds(self) -> frozenset[Capabilities]:
        return frozenset(self.capabilities[expert] for expert in self.experts)

    @cached_property
    def _abstaining(self) -> frozenset[int]:
        return frozenset(e for e, name in enumerate(self.experts) if self.capabilities[name].abstains)

    @cached_property
    def _cached_decisions(self) -> dict[tuple[object, ...], CachedDecision]:
        return {}

    def excluded(self, facts: QueryFacts, alive: Collection[str] | None) -> dict[str, str]:
        """Return the experts that cannot serve a request, with what each lacks."""
        lacks = {kind: kind.lacks(facts) for kind in self._kinds}
        allowed = facts.allowed
        if allowed is None and not any(lacks.values()) and (alive is None or self._all.issubset(alive)):
            return {}
        reasons: dict[str, str] = {}
        for expert in self.experts:
            is_allowed = allowed is None or expert in allowed
            lack = lacks[self.capabilities[expert]] if is_allowed else NOT_ALLOWED
            if lack is None and alive is not None and expert not in alive:
                lack = why_away(expert, facts)
            if lack is not None:
                reasons[expert] = lack
        return reasons

    def decision(
        self,
        query: Query,
        classified: Classification,
        cached: CachedDecision,
        rng: np.random.Generator,
        seed: int | None = None,
    ) -> RoutingDecision:
        """Stage 2 for a classified query."""
        held = None
        if cached.usual.is_fallback and self._abstaining:
            cached = self._with_abstaining(cached, classified.probs)
        usual, odds = cached.usual, cached.odds
        if query.facts.last_expert in usual.ranking:
            last = self.experts.index(query.facts.last_expert)
            quality = dict(zip(odds.eligible, usual.predicted_quality, strict=True))
            rates = [self.prices.get(self.experts[e], UNPRICED) for e in (last, odds.wanted)] if self.prices else None
            odds, held = beside_last(odds, quality, query.facts, last, rates, is_unsure=usual.is_fallback)
        draw = odds.certain or odds.draw(rng, seed)
        expert, reason = self.experts[draw.expert], draw.reason
        changes = {
            "expert": expert,
            "confidence": min(classified.confidence, 1.0),
            "reason": DecisionReason.UNCERTAIN if usual.is_fallback and reason is DecisionReason.MAP else reason,
            "likely_category": self.categories[classified.likely],
            "uncertainty": classified.uncertainty,
            "runner_up": next((name for name in usual.ranking if name != expert), None),
            "eligible_probs": odds.probs,
            "stay": held,
            "category_probs": self.top_categories(classified.probs),
            "seed": draw.seed,
            "propensity": odds.probs[odds.eligible.index(draw.expert)],
        }
        if (view := query.facts.view) is not View.WHOLE:
            changes |= {"view": view, "threshold": self._limit(view)}
        if query.facts.unknown_language is not None:
            changes["unknown_language"] = query.facts.unknown_language
        return usual.model_copy(update=changes)

    def _limit(self, view: View) -> float | None:
        """Return the uncertainty above which a request is sent to `general`; None: all are."""
        threshold = float(self.uncertainty.threshold_of(view))
        return threshold if np.isfinite(threshold) else None

    def _with_abstaining(self, cached: CachedDecision, probs: Sequence[float]) -> CachedDecision:
        """Put experts that can abstain first in the decision on an unsure query; those of likely categories lead. An
        expert is among them if it serves some category. A pin of `general` stays.

        Args:
            probs: probabilities of the categories, of shape (k,).
        """
        odds, policy = cached.odds, self.policies[cached.usual.policy]
        planned = ((row, policy.expert_of(row)[0]) for row in range(len(probs)))
        able = [(row, e) for row, e in planned if e in self._abstaining and e in odds.ranking]
        asked = dict.fromkeys(e for _, e in sorted(able, key=lambda each: -probs[each[0]]))
        if not asked or odds.reason is DecisionReason.PINNED:
            return cached
        ranking = tuple(dict.fromkeys((*asked, *odds.ranking)))
        certain = tuple(float(expert == ranking[0]) for expert in odds.eligible)
        odds = ActionDistribution(odds.eligible, ranking[0], DecisionReason.MAP, certain, ranking, explores=False)
        names = tuple(self.experts[expert] for expert in ranking)
        return CachedDecision(odds, cached.usual.model_copy(update={"ranking": names}))

    def cached_decision(
        self, policy: str, row: int, quality: FloatArray, excluded: Mapping[str, str], pin: int | None = None
    ) -> CachedDecision:
        """Return the decision on queries of a category, made once if the scorer predicts by category.

        Args:
            pin: an expert that serves these queries whatever the map says.

        Raises:
            NoEligibleExpertError: as `decide` raises it.
        """
        key = (policy, row, pin, quality.tobytes(), *excluded.items())
        found = self._cached_decisions.get(key)
        if found is None:
            found = self._new_decision(policy, row, quality, excluded, pin)
            if len(self._cached_decisions) >= MAX_CACHED:
                self._cached_decisions.clear()
            self._cached_decisions[key] = found
        return found

    def _new_decision(
        self, name: str, row: int, quality: FloatArray, excluded: Mapping[str, str], pin: int | None
    ) -> CachedDecision:
        policy = self.policy(name)
        policy = policy if pin is None else replace(policy, pins={row: pin})
        bars = zip(self.experts, policy.bars(row, policy.planned(row, quality)[0], len(self.experts)), strict=True)
        # Experts that could serve if they were reachable, and that the policy does not let.
        barred = {name: bar for name, bar in bars if bar and excluded.get(name, NOT_REACHABLE) in FOR_NOW}
        outside = {name: bar for name, bar in barred.items() if name not in excluded}
        eligible = [e for e, name in enumerate(self.experts) if name not in excluded and name not in outside]
        if not eligible:
            raise NoEligibleExpertError({**excluded, **barred})
        odds = action_distribution(policy, row, eligible, quality)
        shut_out = [self.experts.index(name) for name in (*excluded, *outside)]
        cost, wait = self.expected[0][row], self.expected[1][row]
        usual = RoutingDecision(
            expert=self.experts[odds.wanted],
            category=self.categories[row],
            confidence=1.0,
            is_fallback=self.categories[row] == GENERAL,
            reason=odds.reason,
            likely_category=self.categories[row],
            uncertainty=0.0,
            ranking=tuple(self.experts[e] for e in odds.ranking),
            eligible=tuple(self.experts[e] for e in eligible),
            predicted_quality=within_bounds(quality, eligible),
            excluded=dict(excluded),
            outside_policy=outside,
            excluded_quality=within_bounds(quality, shut_out),
            predicted_cost_usd=tuple(cost[e] for e in (*eligible, *shut_out)),
            predicted_wait_ms=tuple(wait[e] for e in (*eligible, *shut_out)),
            threshold=self._limit(View.WHOLE),
            propensity=1.0,
            policy=name,
            router_version=self.version,
        )
        return CachedDecision(odds, usual)

    def top_categories(self, probs: Sequence[float]) -> dict[str, float]:
        """Return the most likely categories of one query with probabilities of shape (k,), most likely first."""
        pairs = zip(self.classifier.categories_, probs, strict=True)
        return dict(sorted(pairs, key=itemgetter(1), reverse=True)[:TOP_CATEGORIES])


def within_bounds(quality: FloatArray, experts: Sequence[int]) -> tuple[float, ...]:
    """Clip the predicted quality of some of m experts to [0, 1], which a linear scorer may leave."""
    return tuple(min(max(float(quality[e]), 0.0), 1.0) for e in experts)
