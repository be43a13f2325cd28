"""The only place where configuration becomes live objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, cast

import numpy as np

from coe.base.errors import ArtifactError, ConfigError, InfeasibleBudgetError
from coe.router import plugins
from coe.router.capabilities import Capabilities, capabilities
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import ExpertConfig
from coe.router.config.policy import QUALITY_FLOOR, UNKNOWN_LANGUAGES, Budgets, Floor, PolicyConfig
from coe.router.live_pointer import ROUTERS_FOLDER, check_categories, pin_problems, required_pointer
from coe.router.model_files.artifact import RouterArtifact, load_artifact, require_array, require_finite
from coe.router.pipeline import Router
from coe.router.policy.exploration import FLOOR, Exploration, dearness
from coe.router.policy.floor import floor_of
from coe.router.policy.hosting import kept_in_memory
from coe.router.policy.map_solver import ExpertCosts, MapSolution, solve_map
from coe.router.policy.moves import UNPRICED
from coe.router.policy.preference import LearnedChoice, solve_preference
from coe.router.policy.solved_policy import SolvedPolicy
from coe.router.policy.strategy_plan import StrategyPlan, choices_of, solve_plan
from coe.router.prices.cost import KINDS, PROMPT, Price
from coe.router.protocols import ClassifierOf, Encoder, ExpertScorer, ScorerOf
from coe.router.quality import Measured, QualityMatrix, cautious_quality, quality_from_arrays
from coe.router.reading.features import SHAPES, AskDetector, NormalisedEncoder
from coe.router.reading.uncertainty import Uncertainty
from coe.router.section import PluginConfig
from coe.router.strategies.agree import StrategyName
from coe.router.strategies.learned import PART as STRATEGIES
from coe.router.strategies.learned import Ways, learned_ways
from coe.router.types import GENERAL, FloatArray, IntArray

EXPLORATION_SAMPLE = 1000
"""Sample queries of a learned scorer on which exploration is solved: 40 ms (ours)."""


class MeasuredExperts(NamedTuple):
    """The m experts that a router chooses from, with what was measured of them, and what they cost and take. `prices`
    weigh moves of conversations."""

    names: tuple[str, ...]
    evidence: QualityMatrix
    costs: ExpertCosts
    capabilities: Mapping[str, Capabilities]
    prices: Mapping[str, Price] = MappingProxyType({})


def build_encoder(config: PluginConfig) -> Encoder:
    """Build the encoder, over normalized texts.

    Raises:
        ConfigError: unknown kind or option.
        MissingWeightsError, MissingExtraError: weights or packages of the kind are not installed.
    """
    return NormalisedEncoder(cast(Encoder, plugins.build("router.encoders", config.kind, config.options)))


def live_router(config: CoeConfig, data_dir: Path) -> Router:
    """Load the live router of a data folder.

    Raises:
        ArtifactError: there is none, or its pointer is damaged; further errors as `load_router` raises them.
    """
    root = data_dir / ROUTERS_FOLDER
    return load_router(config, root / required_pointer(root).version)


def load_router(config: CoeConfig, folder: Path, encoder: Encoder | None = None) -> Router:
    """Load a router from experts.yaml and a trained artifact.

    Args:
        encoder: one that is open already, if several routers share it.

    Raises:
        ArtifactError: the artifact is damaged, or was trained with another encoder.
        ConfigError: the artifact and experts.yaml share no expert or name other categories, or a pin cannot hold.
        InfeasibleBudgetError: a policy's budget admits no map.
    """
    return configured_router(config, load_artifact(folder), encoder)


def configured_router(config: CoeConfig, artifact: RouterArtifact, encoder: Encoder | None = None) -> Router:
    """Build a router as `load_router` does, from an artifact that is loaded already."""
    check_categories(config, artifact.manifest)
    if problems := pin_problems(config, artifact.manifest):
        raise ConfigError("; ".join(problems), problems)
    kept = [i for i, name in enumerate(artifact.manifest.experts) if name in config.experts]
    if not kept:
        raise ConfigError(
            f"router {artifact.manifest.version} knows the experts {', '.join(artifact.manifest.experts)}, and "
            "experts.yaml has none of them: run `coe train` to measure and map the new ones"
        )
    names = tuple(artifact.manifest.experts[i] for i in kept)
    evidence = evidence_of(artifact).columns(kept)
    entries = {name: config.experts[name] for name in names}
    costs = expert_costs(list(entries.values()), evidence)
    return assemble(
        artifact,
        encoder or build_encoder(config.router.encoder),
        MeasuredExperts(names, evidence, costs, capabilities(config), prices_of_moves(entries)),
        policies=config.policies,
        alpha=config.router.alpha,
        scorer=config.router.scorer,
    )


def table_router(
    artifact: RouterArtifact,
    *,
    budgets: Budgets | None = None,
    active_params_b: Mapping[str, float] | None = None,
    cost_usd: Mapping[str, float | FloatArray] | None = None,
    policies: Mapping[str, PolicyConfig] | None = None,
    encoder: Encoder | None = None,
) -> Router:
    """Build a router over the models of an outcome table, which no experts.yaml names, with the artifact's own encoder.

    Args:
        active_params_b: billions, per expert; hosted parameters are taken to be the same.
        cost_usd: mean cost of a query, per expert: one number, or (k+1,) by category with `general` last.
        policies: more of them, beside `default`.
        encoder: one that is open already, if several routers share it.
    """
    experts, evidence = artifact.manifest.experts, evidence_of(artifact)
    sizes = np.array([(active_params_b or {}).get(name, 0.0) for name in experts], dtype=np.float32)
    shape = evidence.quality.shape[:1]
    prices = [np.broadcast_to(np.float32((cost_usd or {}).get(name, 0.0)), shape) for name in experts]
    costs = ExpertCosts(
        own_params_b=sizes,
        group=np.arange(len(experts)),
        group_params_b=np.zeros(len(experts), dtype=np.float32),
        active_params_b=sizes,
        cost_usd=np.stack(prices, axis=1),
        latency_ms=evidence.latency_ms,
    )
    spec = artifact.manifest.encoder
    return assemble(
        artifact,
        encoder or build_encoder(PluginConfig.model_validate({"kind": spec.kind, **spec.options})),
        MeasuredExperts(experts, evidence, costs, {name: Capabilities() for name in experts}),
        policies={"default": PolicyConfig(budgets=budgets or Budgets())} | dict(policies or {}),
        alpha=0.1,  # as where experts.yaml names none
        scorer=PluginConfig(kind=artifact.manifest.scorer.kind),
    )


def assemble(
    artifact: RouterArtifact,
    encoder: Encoder,
    experts: MeasuredExperts,
    *,
    policies: Mapping[str, PolicyConfig],
    alpha: float,
    scorer: PluginConfig,
) -> Router:
    """Assemble a router from its parts. It raises ArtifactError if the artifact was trained with another encoder or
    scorer."""
    manifest = artifact.manifest
    if encoder.fingerprint != manifest.encoder.fingerprint:
        raise ArtifactError(
            f"router {manifest.version} was trained on encoder {manifest.encoder.kind} "
            f"({manifest.encoder.fingerprint[:12]}), this one is {encoder.fingerprint[:12]}: "
            "its vectors mean something else; run `coe train`"
        )
    classifier_of = cast(
        ClassifierOf,
        plugins.build("router.classifiers", manifest.classifier.kind, manifest.classifier.options),
    )
    of_parts = artifact.part("part_classifier")
    columns = [manifest.experts.index(name) for name in experts.names]
    fitted = build_scorer(artifact, scorer, experts, columns)
    choice = learned_choice(artifact, columns) if fitted.decides_by_query else None
    ways = artifact.part(STRATEGIES)
    learned = learned_ways(ways, len(manifest.categories), len(manifest.experts)).among(columns) if ways else None
    rows, solved = (*manifest.categories, GENERAL), dict[str, SolvedPolicy]()
    for name in sorted(policies, key=lambda each: policies[each].quality_floor is not None):  # floors may be of others
        solved[name] = solved_policy(policies[name], rows, experts, choice, learned, solved)
    return Router(
        version=manifest.version,
        encoder=encoder,
        detector=ask_detector(artifact),
        classifier=classifier_of(manifest.categories, artifact.part("classifier")),
        part_classifier=classifier_of(manifest.categories, of_parts) if of_parts else None,
        temperature=manifest.temperature,
        uncertainty=Uncertainty.from_state(artifact.part("uncertainty"), alpha=alpha),
        scorer=fitted,
        experts=experts.names,
        policies={name: solved[name] for name in policies},
        capabilities=experts.capabilities,
        costs=experts.costs,
        prices=experts.prices,
        ways=learned,
        mix=mix_of(artifact),
        letters=frozenset(artifact.part("letters").get("known", np.zeros(0, dtype=np.int64)).tolist()),
    )


def ask_detector(artifact: RouterArtifact) -> AskDetector | None:
    """Return the detector of asks; None if the router was trained without short queries. It raises ArtifactError if an
    array is missing or has the wrong shape."""
    arrays = artifact.part("asks")
    if not arrays:
        return None
    weights = require_finite(arrays, "weights", (artifact.manifest.encoder.dim,))
    offset, shape_offset = require_finite(arrays, "offsets", (2,)).tolist()
    return AskDetector(weights, offset, require_finite(arrays, "shape", (SHAPES,)), shape_offset)


def mix_of(artifact: RouterArtifact) -> FloatArray | None:
    """Return the frequency of each category in the traffic relative to the labelled queries, as an array of shape (k,).
    It raises ArtifactError if an array has the wrong shape or a number that is not positive."""
    arrays = artifact.part("mix")
    if "ratio" not in arrays:
        return None
    ratio = require_finite(arrays, "ratio", (len(artifact.manifest.categories),))
    if (ratio <= 0).any():
        raise ArtifactError("array 'mix.ratio' must hold positive numbers")
    return ratio


def build_scorer(
    artifact: RouterArtifact, wanted: PluginConfig, experts: MeasuredExperts, columns: Sequence[int]
) -> ExpertScorer:
    """Build the scorer that the artifact was trained with, or a map, which needs no training of its own.

    Raises:
        ArtifactError: experts.yaml wants another kind.
    """
    spec = artifact.manifest.scorer
    if wanted.kind not in (spec.kind, "map"):
        raise ArtifactError(
            f"router {artifact.manifest.version} was trained with scorer '{spec.kind}', experts.yaml wants "
            f"'{wanted.kind}': run `coe train`"
        )
    kind, options = ("map", {}) if wanted.kind == "map" else (spec.kind, spec.options)
    filled = cast(ScorerOf, plugins.build("router.scorers", kind, options))
    return filled(Measured(experts.names, experts.evidence), artifact.part("scorer"), columns)


def learned_choice(artifact: RouterArtifact, columns: Sequence[int]) -> LearnedChoice:
    """Return the choice by query that the artifact stores. It raises ArtifactError if the artifact lacks an array of
    it."""
    arrays = artifact.part("choice")
    sample = require_finite(arrays, "sample", (None, len(artifact.manifest.experts)))
    margin = float(require_finite(arrays, "margin", (1,))[0])
    return LearnedChoice(sample[:, list(columns)], margin, sample_rows(artifact))


def sample_rows(artifact: RouterArtifact) -> IntArray:
    """Return the map's row of each query of the sample, as an array of shape (n,). It raises ArtifactError if a number
    is that of no category."""
    arrays, most = artifact.part("choice"), len(artifact.manifest.categories)
    rows = require_array(arrays, "rows", (len(arrays["sample"]),))
    if not np.isin(rows, np.arange(most + 1)).all():
        raise ArtifactError(f"array 'rows' holds numbers of no category; expected 0 to {most}")
    return np.asarray(rows, dtype=np.int64)


def solved_policy(
    policy: PolicyConfig,
    rows: Sequence[str],
    experts: MeasuredExperts,
    choice: LearnedChoice | None,
    ways: Ways | None,
    others: Mapping[str, SolvedPolicy] = MappingProxyType({}),
) -> SolvedPolicy:
    """Solve a policy over the experts; `others` are the policies that a floor may refer to."""
    names = experts.names
    pins = policy.pin_numbers(rows, names)
    evidence, costs, floor = experts.evidence, experts.costs, None
    if policy.quality_floor is not None:
        floor = floor_of(policy.quality_floor, evidence, names, ways, others)
    quality = cautious_quality(evidence, costs.cost_usd if floor is None else 0.0)
    try:
        solution = solve_map(quality, evidence.mass, costs, policy.budgets, pins, floor)
    except InfeasibleBudgetError as error:
        if ways is None or policy.strategy is StrategyName.SINGLE or not error.budget.startswith(QUALITY_FLOOR):
            raise
        solution = solve_map(quality, evidence.mass, costs, policy.budgets, pins)  # where answers cannot be compared
    preference = None
    if choice is not None:
        preference = solve_preference(choice, solution.expert_of, evidence.mass, costs, policy.budgets, pins)
    plan = None if ways is None else strategy_plan(policy, experts, ways, solution, pins, floor)
    if plan is not None:
        alone = plan.choice_of < len(names)
        solution = replace(solution, expert_of=np.where(alone, plan.choice_of, solution.expert_of))
    stranger = policy.pins.get(UNKNOWN_LANGUAGES)
    solved = SolvedPolicy(
        solution,
        pins,
        preference=preference,
        plan=plan,
        unknown_languages=names.index(stranger) if stranger in names else None,
        floor=floor,
    )
    if not policy.exploration:
        return solved
    explores = Exploration(
        stderr=evidence.stderr.astype(np.float64),
        dear=dearness(costs.cost_usd, solution.used["cost_usd"]),
        quality=evidence.quality.astype(np.float64),
        floor=FLOOR,
    )
    if choice is None:
        return solved.exploring(explores, policy.exploration, evidence.quality, range(len(rows)), evidence.mass)
    some = np.linspace(0, len(choice.rows) - 1, min(len(choice.rows), EXPLORATION_SAMPLE)).astype(np.int64)
    sample, of_rows = choice.sample[some], choice.rows[some].tolist()
    return solved.exploring(explores, policy.exploration, sample, of_rows, np.ones(len(some), dtype=np.float32))


def strategy_plan(
    policy: PolicyConfig,
    experts: MeasuredExperts,
    ways: Ways,
    solution: MapSolution,
    pins: Mapping[int, int],
    floor: Floor | None = None,
) -> StrategyPlan | None:
    """Plan a policy's strategy within the limits that the map keeps; None for `single`. Hosted parameters limit which
    experts it may ask: those of the map, and the best others that fit beside them."""
    if policy.strategy is StrategyName.SINGLE:
        return None
    evidence, costs = experts.evidence, experts.costs
    limits = policy.budgets.model_dump(exclude_none=True)
    allowed, hosted = np.ones(len(experts.names), dtype=bool), limits.pop("hosted_params_b", None)
    if hosted is not None:
        core = np.isin(np.arange(len(allowed)), solution.expert_of)
        quality = evidence.mass @ evidence.quality
        allowed = kept_in_memory(core, quality, costs.memory, hosted)
    if policy.max_calls is not None:
        limits["calls"] = policy.max_calls
    choices = choices_of(ways, evidence, costs, allowed, pins, floor)
    return solve_plan(choices, solution.expert_of, limits)


def evidence_of(artifact: RouterArtifact) -> QualityMatrix:
    manifest = artifact.manifest
    return quality_from_arrays(artifact.part("map"), len(manifest.categories), len(manifest.experts))


def expert_costs(entries: Sequence[ExpertConfig], evidence: QualityMatrix) -> ExpertCosts:
    """Return costs from the sizes and prices of experts.yaml and the tokens and latencies of the evidence. Prices are
    those of prompts of the typical length. If an expert never answered in a category, its answers there count as long
    as its others: at a length of 0 an expensive expert would count as cheap."""
    groups = {group: number for number, group in enumerate(dict.fromkeys(entry.host_group for entry in entries))}
    group_size = {entry.host_group: entry.params_b for entry in entries}
    rates = [[[*entry.chat_price.at(length).values()] for entry in entries] for length in evidence.prompt_tokens]
    by_kind, is_prompt = evidence.shares * rates, np.array([kind in PROMPT for kind in KINDS])
    price_in, price_out = by_kind[..., is_prompt].sum(axis=2), by_kind[..., ~is_prompt].sum(axis=2)
    per_million = evidence.prompt_tokens[:, None] * price_in + typical_lengths(evidence.output_tokens) * price_out
    return ExpertCosts(
        own_params_b=np.zeros(len(entries), dtype=np.float32),
        group=np.array([groups[entry.host_group] for entry in entries], dtype=np.int64),
        group_params_b=np.array([group_size[group] for group in groups], dtype=np.float32),
        active_params_b=np.array([entry.active_b for entry in entries], dtype=np.float32),
        cost_usd=np.asarray(per_million / 1e6, dtype=np.float32),
        latency_ms=evidence.latency_ms,
    )


def prices_of_moves(entries: Mapping[str, ExpertConfig]) -> dict[str, Price]:
    """Return the rates by which experts are compared when a conversation moves; empty if some experts have no size.
    They are prices if any is stated, else active parameters, which make up nearly all of a token's cost."""
    if any(entry.price for entry in entries.values()):
        return {name: entry.chat_price for name, entry in entries.items()}
    if not all(entry.active_b for entry in entries.values()):
        return {}
    ratios = UNPRICED.rates.items()
    return {name: Price({kind: rate * entry.active_b for kind, rate in ratios}) for name, entry in entries.items()}


def typical_lengths(output_tokens: FloatArray) -> FloatArray:
    """Replace unknown answer lengths (0) by the mean of the expert's other categories; tokens, of shape (k, m)."""
    known = output_tokens > 0
    mean = output_tokens.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, output_tokens, mean).astype(np.float32)
