"""A run of `coe eval routing`: training sees the fit rows alone, and its routers are measured on test rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from coe.base.embedding_cache import CachedEncoder
from coe.base.errors import ConfigError
from coe.cli.progress import Progress
from coe.eval.certify.certify import Claim, certificate_of
from coe.eval.certify.ladder import build_ladder
from coe.eval.certify.units import Drawn, easier_only, units_of
from coe.eval.routing.baselines import one_hot
from coe.eval.routing.frontier import WITHIN, known_budgets, limited_policies, policy_name
from coe.eval.routing.out_of_fold import out_of_fold
from coe.eval.routing.routing_records import DataFacts, Report
from coe.eval.routing.routing_report import measure
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.strategy_arms import AGREE, play_plan, strategy_arm
from coe.eval.routing.table_fit import TableRequest, fit_methods, fit_table
from coe.eval.routing.trial import Choice, Trial, costs, costs_by_category, filled_costs, mean_costs
from coe.eval.routing.trial_tables import Tables, fingerprint, read_tables, require_amounts
from coe.fleet.certificate import Certificate
from coe.fleet.router_registry import Registry
from coe.router import plugins
from coe.router.build import evidence_of, table_router
from coe.router.config.policy import QUALITY_FLOOR, Budgets, PolicyConfig
from coe.router.model_files.artifact import RouterArtifact
from coe.router.pipeline import Router
from coe.router.policy.preference import amounts_by_row
from coe.router.protocols import Encoder
from coe.router.strategies.agree import StrategyName
from coe.router.strategies.learned import Played
from coe.router.types import FloatArray, IntArray, QueryBatch
from coe.training.types import OutcomeTable

ENCODE_BATCH = 64


def method_arm(kind: str, router: Router, trial: Trial) -> Choice:
    """Build the arm of a router with a kind of scorer, under the trial's budgets."""
    return Choice(kind, *describe_scorer(kind), one_hot(decide_test(router, trial), len(trial.test.experts)), "method")


def decide_test(router: Router, trial: Trial, policy: str = "default") -> IntArray:
    """Return a router's experts for the test queries, of shape (n,)."""
    batch = QueryBatch.of(trial.test.texts, trial.test_embeddings)
    found = router.decide_batch(batch, rng=np.random.default_rng(0), policy=policy)
    return trial.numbers([decision.expert for decision in found])


def describe_scorer(kind: str) -> tuple[str, str]:
    """Return the name of a kind of scorer, and how it chooses, for readers."""
    module = plugins.load("router.scorers", kind)
    return str(module.LABEL), str(module.HOW)


def table_request(fit: OutcomeTable, request: RoutingRequest) -> TableRequest:
    """Build the request of a fit on the fit rows alone."""
    return TableRequest(fit, request.encoder, request.classifier, request.method, request.cache, request.seed)


def load(
    artifact: RouterArtifact,
    table: OutcomeTable,
    budgets: Budgets,
    encoder: Encoder | None = None,
    policies: Mapping[str, PolicyConfig] | None = None,
) -> Router:
    """Load the trained router under budgets and more `policies`; `encoder` is reused if it is given.

    The table gives the experts' costs by category, scaled so that an expert alone costs its mean over the table. Rows
    of `general` count the mean of all prompts, and some costs may be unknown.

    Raises:
        InfeasibleBudgetError, ArtifactError: as in `table_router`.
    """
    mass = evidence_of(artifact).mass
    by_category = costs_by_category(table, artifact.manifest.categories)
    scaled = amounts_by_row(by_category, mean_costs(table), mass / mass.sum()).astype(np.float32)
    prices = {e: cost for e, cost in zip(table.experts, scaled.T, strict=True) if np.isfinite(cost).all()}
    return table_router(
        artifact,
        budgets=budgets,
        active_params_b=table.active_params_b,
        cost_usd=prices,
        policies=policies,
        encoder=encoder,
    )


def encode(encoder: Encoder, texts: Sequence[str], progress: Progress, what: str) -> FloatArray:
    """Encode texts; return vectors of shape (n, d)."""
    parts = []
    for start in range(0, len(texts), ENCODE_BATCH):
        progress(f"encoding {what} queries: {start} of {len(texts)}")
        parts.append(encoder.encode(texts[start : start + ENCODE_BATCH]))
    return np.concatenate(parts)


def run_trial(
    tables: Tables, router: Router, request: RoutingRequest, how: str, rng: np.random.Generator, progress: Progress
) -> Trial:
    """Decide every test query; `how` describes how the router chooses."""
    test = tables.test
    encoder = router.encoder if request.cache is None else CachedEncoder(router.encoder, request.cache)
    vectors = encode(encoder, test.texts, progress, "test")
    return Trial(
        fit=tables.fit,
        test=test,
        fit_embeddings=encode(encoder, tables.fit.texts, progress, "fit"),
        test_embeddings=vectors,
        decisions=router.decide_batch(QueryBatch.of(test.texts, vectors), rng=rng),
        expert_of=router.expert_of("default"),
        budgets=request.budgets,
        how=how,
        binding=router.policy("default").solution.binding,
    )


def with_policies(trial: Trial, artifact: RouterArtifact, router: Router, request: RoutingRequest) -> Trial:
    """Add the strategy that training learned, if answers are known, and the router's choices under every limit of
    its frontier."""
    budgets = known_budgets(trial)
    has_ways = router.ways is not None and trial.test.answers is not None
    policies = (strategy_policies(request) if has_ways else {}) | limited_policies(
        budgets, with_floor=request.method == "map"
    )
    loaded = load(artifact, trial.fit, request.budgets, router.encoder, policies)
    return replace(
        trial,
        strategies=(strategy_arm(loaded, trial),) if has_ways else (),
        limited={
            budget.name: [decide_test(loaded, trial, policy_name(budget, limit)) for limit in budget.limits.tolist()]
            for budget in budgets
        }
        | ({QUALITY_FLOOR: [decide_test(loaded, trial, QUALITY_FLOOR)]} if QUALITY_FLOOR in policies else {}),
    )


def certify_cheapest(trial: Trial, artifact: RouterArtifact, router: Router, now: datetime) -> Certificate | None:
    """Return the certificate that the test rows give the cheapest plan within the floor. Return None if no plan is
    cheaper, or if the router does not decide by a map."""
    strategy = StrategyName.SINGLE if trial.test.answers is None or router.ways is None else StrategyName.AGREE
    policies = {"cheapest": PolicyConfig(quality_floor=WITHIN, strategy=strategy)}
    if QUALITY_FLOOR not in trial.limited:
        return None

    def loaded(more: Mapping[str, PolicyConfig]) -> Router:
        return load(artifact, trial.fit, Budgets(), router.encoder, policies | dict(more))

    try:
        ladder = build_ladder(loaded, "cheapest", policies)
    except ConfigError:
        return None
    ladder = easier_only(ladder, trial.fit, ladder.choices(trial.fit_embeddings), WITHIN.within)
    order = np.random.default_rng(0).permutation(len(trial.test.texts))
    drawn, choices = [Drawn(text=trial.test.prompt_ids[i]) for i in order], ladder.choices(trial.test_embeddings[order])
    units = units_of(drawn, trial.test, order, choices, ladder)
    asked = Claim("cheapest", WITHIN.within, now, valid_days=0)
    return certificate_of(units, ladder, asked, dict.fromkeys(ladder.router.experts, ""))


def data_facts(request: RoutingRequest, tables: Tables, router_version: str, encoder: str) -> DataFacts:
    """Describe the data behind the figures."""
    test = tables.test
    is_known = bool(np.isfinite(costs(test)).any())
    return DataFacts(
        source=test.source,
        metric=test.metric,
        method=request.method,
        has_one_category=tables.has_one_category,
        experts=test.experts,
        n_fit=len(tables.fit.prompt_ids),
        n_test=len(test.prompt_ids),
        splits=dict(tables.splits),
        n_overlap_removed=tables.n_overlap_removed,
        n_incomplete_removed=tables.n_incomplete,
        fingerprints={"fit": fingerprint(tables.fit), "test": fingerprint(test)},
        cost="unknown" if not is_known else "estimated" if test.is_cost_estimated else "recorded",
        cost_filled=filled_costs(test),
        budgets=request.budgets.model_dump(exclude_none=True),
        encoder=encoder,
        router_version=router_version,
    )


def run_routing(request: RoutingRequest, *, now: datetime, progress: Progress) -> Report:
    """Fit on the fit rows, decide the test rows, and measure. Write the trained router under `request.out`.

    Raises:
        DataError, ConfigError, InfeasibleBudgetError, RouterError: an input is wrong; the message names the value.
    """
    progress("reading outcomes")
    tables = read_tables(request)
    require_amounts(tables.fit, request.budgets)
    progress(f"training on {len(tables.fit.prompt_ids)} queries")
    wanted, registry = table_request(tables.fit, request), Registry(request.out / "routers")
    fitted = fit_methods(registry.root, wanted, now=now, progress=progress)
    artifact = fitted[wanted.scorer]
    registry.promote(artifact.manifest.version, now)
    router = load(artifact, tables.fit, request.budgets)
    decide_rng, measure_rng = np.random.default_rng(request.seed).spawn(2)
    how = describe_scorer(artifact.manifest.scorer.kind)[1]
    trial = run_trial(tables, router, request, how, decide_rng, progress)
    trial = replace(
        trial,
        methods=tuple(
            method_arm(kind, load(made, tables.fit, request.budgets, router.encoder), trial)
            for kind, made in fitted.items()
        ),
    )
    progress("deciding under every limit")
    trial = with_policies(trial, artifact, router, request)
    progress("measuring")
    facts = data_facts(request, tables, router.version, encoder_name(artifact))
    report = measure(trial, request, facts, rng=measure_rng, now=now)
    decide = partial(decide_unseen, encoder=router.encoder, now=now, progress=progress)
    more = {
        "out_of_fold": out_of_fold(tables, request, decide, progress),
        "certificate": certify_cheapest(trial, artifact, router, now),
    }
    return report.model_copy(update=more)


def decide_unseen(
    fit: OutcomeTable,
    unseen: OutcomeTable,
    request: RoutingRequest,
    *,
    encoder: Encoder,
    now: datetime,
    progress: Progress,
) -> tuple[IntArray, Played | None]:
    """Fit a router on `fit`; return its experts (n,) for another table's prompts, and the strategy's choices."""
    with tempfile.TemporaryDirectory() as scratch:
        artifact = fit_table(Path(scratch), table_request(fit, request), now=now, progress=progress)
    router = load(artifact, fit, request.budgets, encoder, strategy_policies(request))
    rng = np.random.default_rng(request.seed)
    trial = run_trial(Tables(fit, unseen, {}, 0), router, request, "", rng, progress)
    plan = None if unseen.answers is None else router.policy(AGREE).plan
    return trial.decided, None if plan is None else play_plan(router, trial, plan)


def strategy_policies(request: RoutingRequest) -> dict[str, PolicyConfig]:
    """Return the policy of the strategy, by its name."""
    return {AGREE: PolicyConfig(strategy=StrategyName.AGREE, budgets=request.budgets)}


def encoder_name(artifact: RouterArtifact) -> str:
    """Return the kind of encoder, or the kinds joined by `+`."""
    spec = artifact.manifest.encoder
    parts = spec.options.get("parts")
    return "+".join(str(part["kind"]) for part in parts) if isinstance(parts, list | tuple) else spec.kind
