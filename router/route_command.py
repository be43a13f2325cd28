"""`coe route`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.options import ConfigOption, DataOption, JsonOption
from base.visible_text import echo

if TYPE_CHECKING:
    from router.config import CoeConfig
    from router.pipeline import Router


def live_router(config: CoeConfig, data_dir: Path) -> Router:
    """The live router of a data folder. Raises ArtifactError when there is none, or its pointer is damaged."""
    from base.errors import ArtifactError
    from router.build import load_router
    from router.live_pointer import LIVE_FILE, ROUTERS_FOLDER, read_pointer

    root = data_dir / ROUTERS_FOLDER
    pointer = read_pointer(root)
    if pointer is None:
        raise ArtifactError(f"{root / LIVE_FILE}: there is no live router yet; `coe up` or `coe train` makes the first")
    return load_router(config, root / pointer.version)


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
    from router.config import load_config
    from router.explain import decision_table
    from router.types import Query, QueryFacts

    router = live_router(load_config(config), data_dir)
    query = Query(id="cli", text=text.strip(), facts=QueryFacts(prompt_chars=len(text)))
    decision = router.decide(query, policy=policy, rng=np.random.default_rng())
    if as_json:
        echo(decision.model_dump_json(indent=1))
        return
    top = router.predict_categories(router.encoder.encode([query.text]))
    Terminal().print(decision_table(decision, top, router.uncertainty.threshold))
