"""Sub-commands of the router package: `coe check` and `coe route`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.options import ConfigOption, DataOption
from router.visible_text import echo

if TYPE_CHECKING:
    from router.config import CoeConfig
    from router.pipeline import Router

COMMANDS = {"check": "router.commands:check", "route": "router.commands:route"}


def check(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    online: Annotated[
        bool, typer.Option("--online", help="ask every engine whether it has its expert's model")
    ] = False,
) -> None:
    """Validate experts.yaml: keys, names, plugin options, weights, adapters, variables, budgets, the live router."""
    import asyncio
    import os

    from router.agreement import category_warnings, pin_problems
    from router.check import find_problems, resolved_lines
    from router.config import load_config
    from router.engine_check import engine_problems, not_asked
    from router.errors import ConfigError
    from router.live_pointer import live_manifest
    from router.terminal import Terminal

    loaded = load_config(config)
    problems = find_problems(loaded, config, os.environ)
    manifest = live_manifest(data_dir)
    if manifest is not None:
        problems += [f"{config}: {line}" for line in pin_problems(loaded, manifest)]
    if online:
        found = asyncio.run(engine_problems(loaded, os.environ, running_engines(data_dir)))
        problems += [f"{config}: {line}" for line in found]
    if problems:
        raise ConfigError("\n".join(problems), problems)
    for line in resolved_lines(loaded):
        Terminal().print(line, highlight=False, soft_wrap=True)
    for line in [] if manifest is None else category_warnings(loaded, manifest):
        echo(f"warning: {config}: {line}", to_stderr=True)
    if online and (others := not_asked(loaded)):
        Terminal().print(f"not asked, because their engines list no models: {', '.join(others)}", soft_wrap=True)
    Terminal().print(
        f"{config}: {len(loaded.experts)} experts, {len(loaded.categories)} categories: no problem found",
        soft_wrap=True,
    )


def running_engines(data_dir: Path) -> dict[str, str]:
    """API root per expert that `coe experts up` announced in the data folder; it may have ended since."""
    import json

    try:
        urls = json.loads((data_dir / "engines" / "vllm.json").read_bytes())["urls"]
        return {str(name): str(url) for name, url in urls.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def live_router(config: CoeConfig, data_dir: Path) -> Router:
    """The live router of a data folder. Raises ArtifactError when there is none."""
    import json

    from router.build import load_router
    from router.errors import ArtifactError

    pointer = data_dir / "routers" / "live.json"
    try:
        version = json.loads(pointer.read_bytes())["version"]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{pointer}: there is no live router yet; `coe up` or `coe train` makes the first"
        ) from error
    return load_router(config, pointer.parent / str(version))


def route(
    text: Annotated[str, typer.Argument(help="the query")],
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    policy: Annotated[str, typer.Option(help="policy of experts.yaml")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="print the decision as JSON")] = False,
) -> None:
    """Print the decision for a text, and why. Nothing is called."""
    import numpy as np

    from router.config import load_config
    from router.explain import decision_table
    from router.terminal import Terminal
    from router.types import Query, QueryFacts

    router = live_router(load_config(config), data_dir)
    query = Query(id="cli", text=text.strip(), facts=QueryFacts(prompt_chars=len(text)))
    decision = router.decide(query, policy=policy, rng=np.random.default_rng())
    if as_json:
        echo(decision.model_dump_json(indent=1))
        return
    top = router.predict_categories(router.encoder.encode([query.text]))
    Terminal().print(decision_table(decision, top, router.uncertainty.threshold))
