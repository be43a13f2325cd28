"""`coe route`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.visible_text import echo
from coe.cli.options import ConfigOption, DataOption, JsonOption

if TYPE_CHECKING:
    from coe.cli.terminal import Grid
    from coe.router.deciding_words import ReadFrom
    from coe.router.pipeline import Router
    from coe.router.types import FloatArray, RoutingDecision

TOP_CATEGORIES = 3


def route(
    text: Annotated[str, typer.Argument(help="the query", show_default=False)] = "",
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    policy: Annotated[str, typer.Option(help="policy of experts.yaml")] = "default",
    tests: Annotated[Path | None, typer.Option(help="check these expectations, such as routes.test.yaml")] = None,
    as_json: JsonOption = False,
) -> int:
    """Print the decision for a text, and why; or check expectations, with exit status 1 where one fails. Nothing is
    called."""
    import numpy as np

    from coe.base.errors import ConfigError
    from coe.cli.terminal import Terminal
    from coe.fleet.explain import RouteAnswer, reason_in_words
    from coe.router.build import live_router
    from coe.router.config.composition import load_config
    from coe.router.deciding_words import read_from
    from coe.router.types import Query, QueryFacts

    if bool(text) == (tests is not None):
        raise ConfigError("give a text, or --tests FILE")
    composition = load_config(config)
    router = live_router(composition, data_dir)
    router.policy(policy)  # refuses an unknown name before any work
    rng = np.random.default_rng()

    def query_of(text: str) -> Query:
        return Query(id="cli", text=text.strip(), facts=QueryFacts(prompt_chars=len(text)))

    if tests is not None:
        still = router.without_exploration()

        def decide(text: str) -> RoutingDecision:
            return still.decide(query_of(text), policy=policy, rng=rng)

        return check_routes(tests, still, tuple(composition.experts), decide)
    query = query_of(text)
    vector, _, view, language = router.features(query)
    decision = router.decide(query.read_from(view, language), policy=policy, rng=rng, embedding=vector)
    read = read_from(router, query)
    if as_json:
        echo(RouteAnswer(decision=decision, why=reason_in_words(decision), read_from=read).model_dump_json(indent=1))
    else:
        Terminal().print(why_table(router, policy, decision, vector, read))
    return 0


def check_routes(
    tests: Path, router: Router, experts: Collection[str], decide: Callable[[str], RoutingDecision]
) -> int:
    """Prints how many expectations hold, and each that does not; the exit status."""
    from coe.router.expectations import check_expectations, load_expectations

    expected = load_expectations(tests, experts, router.categories)
    failures = check_expectations(expected, decide, file=str(tests))
    echo(f"{tests}: {len(expected.cases)} cases, {len(failures)} failures; router {router.version}")
    for line in failures:
        echo(f"coe: {line}", to_stderr=True)
    return 1 if failures else 0


def why_table(router: Router, policy: str, decision: RoutingDecision, vector: FloatArray, read: ReadFrom) -> Grid:
    """The decision, what it was made from, the strategy of the policy, and the budgets that hold it back."""
    from coe.cli.terminal import Grid
    from coe.fleet.explain import reason_in_words

    table = Grid(show_header=False, title=f"{decision.category} -> {decision.expert}", title_justify="left")
    probs, threshold = (
        router.predict_categories(vector, [decision.view]),
        router.uncertainty.threshold_of(decision.view),
    )
    likely = sorted(zip(probs.categories, probs.probs[0], strict=True), key=lambda pair: -pair[1])[:TOP_CATEGORIES]
    quality = sorted(zip(decision.eligible, decision.predicted_quality, strict=True), key=lambda pair: -pair[1])
    table.add_row("why", reason_in_words(decision, threshold))
    table.add_row("categories", numbered(likely))
    table.add_row("uncertainty", f"{decision.uncertainty:.2f} (falls back to general above {threshold:.2f})")
    table.add_row("predicted quality", numbered(quality))
    table.add_row("runner-up", decision.runner_up or "none")
    table.add_row("order", ", ".join(decision.ranking))
    for expert, lack in (decision.excluded | decision.outside_policy).items():
        if expert != decision.expert:
            table.add_row(f"not {expert}", lack)
    table.add_row("propensity", f"{decision.propensity:.3f}")
    table.add_row("policy", decision.policy)
    table.add_row("router version", decision.router_version)
    table.add_row("words", numbered(read.words.items()) or "none of them alone")
    solved, strategy = router.policy(policy), router.strategy(policy, decision.category)
    plan = solved.plan
    if strategy is not None:
        asked = ", ".join(router.experts[each] for each in strategy.experts)
        table.add_row("strategy", f"agree: {asked}, where their answers can be compared")
    if binding := (solved.solution if plan is None else plan).binding:
        table.add_row("held by", ", ".join(binding))
    return table


def numbered(values: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values)
