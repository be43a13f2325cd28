"""`coe route`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.options import ConfigOption, DataOption, JsonOption
from base.visible_text import echo

if TYPE_CHECKING:
    from router.config import CoeConfig


def answering(config: CoeConfig, text: str) -> tuple[str, ...]:
    """The experts that are not language models and that have an answer; a cache, which knows what was asked before, is
    in the gateway only."""
    from fleet.wires.builtin import BuiltinBackend
    from router import plugins

    body = {"messages": [{"role": "user", "content": text}]}
    found = []
    for name in config.builtins:
        entry = config.experts[name]
        backend = BuiltinBackend(name, plugins.build("fleet.builtins", entry.model, entry.params))
        if backend.answer_to(body) is not None:
            found.append(name)
    return tuple(found)


def route(
    text: Annotated[str, typer.Argument(help="the query")],
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    policy: Annotated[str, typer.Option(help="policy of experts.yaml")] = "default",
    as_json: JsonOption = False,
) -> None:
    """Print the decision for a text, and why. Nothing is called."""
    import numpy as np

    from base.terminal import Terminal
    from router.build import live_router
    from router.config import load_config
    from router.explain import decision_table
    from router.types import Query, QueryFacts

    composition = load_config(config)
    router = live_router(composition, data_dir)
    facts = QueryFacts(prompt_chars=len(text), answering=answering(composition, text))
    query = Query(id="cli", text=text.strip(), facts=facts)
    vector = router.embed(query.text, query.earlier)
    decision = router.decide(query, policy=policy, rng=np.random.default_rng(), embedding=vector)
    if as_json:
        echo(decision.model_dump_json(indent=1))
        return
    table = decision_table(decision, router.predict_categories(vector), router.uncertainty.threshold)
    solved, strategy = router.policy(policy), router.strategy(policy, decision.category, vector)
    plan = solved.plan
    if strategy is not None and plan is not None:
        asked = ", ".join(router.experts[each] for each in strategy.experts)
        table.add_row("strategy", f"{plan.strategy} of {asked}, where their answers can be compared")
    if binding := (solved.solution if plan is None else plan).binding:
        table.add_row("held by", ", ".join(binding))
    Terminal().print(table)
