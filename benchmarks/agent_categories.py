"""Which category gets an ask to a coding agent, with the composition of `coe init --agents`?

    python -m benchmarks.agent_categories

Fits stage 1 on the shipped asks as `coe train` does and decides benchmarks/agent_asks.jsonl: 60 asks that were written
before any of the shipped ones (the first 30), or before the second half of them (the others). Both are by one author,
so traffic of your own may be harder. The encoder is the demo's, because the one of `coe init` is a download.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from coe.base.shares import wilson_interval
from coe.base.shipped import DEFAULT_CONFIG, seed_folder, shipped_root
from coe.fleet.setup.composition import Found, composition_text
from coe.router.build import load_router
from coe.router.config.composition import CoeConfig, load_config, parse_text
from coe.router.pipeline import Router
from coe.router.types import GENERAL, Query
from coe.training.fit_inputs import TrainRequest, fit_configured, numbered_queries

ASKS = Path(__file__).with_name("agent_asks.jsonl")
EXPERT = {"engine": "openai", "model": "Qwen/Qwen2.5-7B-Instruct", "url": "http://127.0.0.1:9/v1"}


def agents_composition() -> CoeConfig:
    """Return the composition of `coe init --agents`, with the encoder of the demo."""
    own = parse_text(composition_text(Found({"coder": EXPERT}, is_for_agents=True)), file=DEFAULT_CONFIG.name)
    demo = load_config(shipped_root() / DEFAULT_CONFIG)
    return own.model_copy(update={"router": own.router.model_copy(update={"encoder": demo.router.encoder})})


def fitted(config: CoeConfig, folder: Path) -> Router:
    """Fit a router from the shipped queries. The expert is known by its published score alone."""
    file = folder / DEFAULT_CONFIG
    file.write_text(config.model_dump_json(exclude_unset=True), encoding="utf-8")
    request = TrainRequest(file, folder / "outcomes", seed_folder())
    artifact = fit_configured(folder / "routers", request, now=datetime.now(UTC))
    for name, figure in artifact.manifest.metrics.items():
        print(f"{name}: {figure.value:.3f} (n {figure.n})")
    return load_router(config, folder / "routers" / artifact.manifest.version)


def judged(router: Router) -> dict[str, list[str]]:
    """Return the asks whose category is right, unsure and wrong."""
    found: dict[str, list[str]] = {"right": [], "unsure": [], "wrong": []}
    for _, ask in numbered_queries(ASKS, ""):
        got = router.decide(Query(id="ask", text=ask.text), policy="default", rng=np.random.default_rng(0)).category
        kind = "right" if got == ask.category else "unsure" if got == GENERAL else "wrong"
        found[kind].append(f"{ask.category} -> {got}: {ask.text}")
    return found


def main() -> None:
    with TemporaryDirectory() as folder:
        found = judged(fitted(agents_composition(), Path(folder)))
    total = sum(map(len, found.values()))
    for kind, asks in found.items():
        low, high = wilson_interval(len(asks) / total, total)
        print(f"{kind}: {len(asks)} of {total} ({low:.0%} to {high:.0%})")
    print(*found["unsure"], *found["wrong"], sep="\n")


if __name__ == "__main__":
    main()
