"""Predictions for RouterArena (arXiv 2510.00202): which model a trained router picks for each of its prompts.

The prompts file is RouterArena's own (`router_data_10.json`): a list of objects with `global index` and
`prompt_formatted` or `prompt`. Nothing of it is fitted on. Answers, costs and accuracies stay null: RouterArena's own
scripts fill them in, and `coe eval arena` scores the result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eval.arena_files import ArenaPrompt, read_arena_prompts
from eval.export_formats import ExportRequest
from router.artifact import load_artifact
from router.build import table_router
from router.errors import ConfigError, allowed_values
from router.pipeline import Router
from router.types import Query, QueryBatch, QueryFacts

SUMMARY = "RouterArena predictions: decisions of --router on RouterArena's prompts"
NEEDS = ("router", "prompts", "names")
BATCH = 256


def write(request: ExportRequest) -> int:
    """Gives the number of predictions. Raises ConfigError, DataError, ArtifactError."""
    if request.router is None or request.prompts is None:
        raise ConfigError("--router and --prompts: are needed")
    router = table_router(load_artifact(request.router))
    for name in request.names:
        if name not in router.experts:
            raise ConfigError(f"--name: unknown expert '{name}'{allowed_values(name, router.experts)}")
    prompts = read_arena_prompts(request.prompts)
    chosen = [request.names.get(expert, expert) for expert in decide(router, [p.text for p in prompts])]
    predictions = [prediction(prompt, model) for prompt, model in zip(prompts, chosen, strict=True)]
    write_json(request.out, predictions)
    return len(predictions)


def decide(router: Router, texts: Sequence[str]) -> Iterator[str]:
    """The expert for each text, in order."""
    rng = np.random.default_rng(0)
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        queries = tuple(Query(str(i), text.strip(), QueryFacts(prompt_chars=len(text))) for i, text in enumerate(part))
        batch = QueryBatch(queries, router.encoder.encode([query.text for query in queries]))
        yield from (decision.expert for decision in router.decide_batch(batch, rng=rng))


def prediction(prompt: ArenaPrompt, model: str) -> dict[str, object]:
    return {
        "global index": prompt.global_index,
        "prompt": prompt.text,
        "prediction": model,
        "generated_result": None,
        "cost": None,
        "accuracy": None,
        "for_optimality": False,
    }


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
