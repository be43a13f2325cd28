"""The commands `coe retrieval train` and `coe retrieval pilots`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.errors import ConfigError
from coe.cli.options import ConfigOption, SeedOption, cache_folder

if TYPE_CHECKING:
    from coe.retrieval.routing.pilot_library import PilotLibrary
    from coe.retrieval.training.collection import Collection
    from coe.retrieval.types import RetrievalExpert
    from coe.router.config.retrieval import RetrievalConfig

TRAINABLE = ("bert", "sentence_transformer")
"""Kinds of encoders that run a sentence-transformers folder, named by their option `model`."""


def train(
    name: Annotated[str, typer.Argument(help="name of the expert")],
    data: Annotated[Path, typer.Option(help="a collection in BEIR layout")],
    out: Annotated[Path, typer.Option(help="folder of the expert")],
    seed: SeedOption = 0,
    config: ConfigOption = Path("experts.yaml"),
) -> None:
    """Train the base of experts.yaml on the queries of a collection; its documents stay as the base has them."""
    import torch

    from coe.cli.progress import console_progress
    from coe.retrieval.experts.trained import MANIFEST_FILE, Manifest
    from coe.retrieval.training.collection import read_collection
    from coe.retrieval.training.query_model import Look, prepare, train_queries
    from coe.retrieval.training.searcher import Searcher
    from coe.retrieval.types import BASE, BaseExpert
    from coe.router import plugins
    from coe.router.model_files.weights import resolve_weights

    torch.set_num_threads(1)
    encoder = retrieval_section(config).encoder
    if encoder.kind not in TRAINABLE:
        raise ConfigError(
            f"retrieval.encoder: kind '{encoder.kind}' cannot be trained; allowed: {', '.join(TRAINABLE)}"
        )
    options = plugins.validate_options("router.encoders", encoder.kind, encoder.options).model_dump()
    base = BaseExpert(plugins.build("router.encoders", encoder.kind, options))
    with console_progress() as progress:
        progress("reading")
        collection = read_collection(data)
        searcher = Searcher(collection, {BASE: base}, cache_folder(out.parent / "embeddings"), progress)
        corpus = prepare(collection, searcher.documents(base))

        def on_look(look: Look) -> None:
            progress(f"{name}: step {look.step}")
            say(f"step {look.step}: dev nDCG@10 {look.dev:.3f}, best {look.best:.3f}")

        progress(f"{name}: first look at dev")
        found, plain = train_queries(corpus, resolve_weights(options.pop("model")), out, seed=seed, on_look=on_look)
    manifest = Manifest(
        base_fingerprint=base.fingerprint,
        kind=encoder.kind,
        options=options,
        created_at=datetime.now(UTC).isoformat(),
        dev_ndcg=found,
        dev_ndcg_base=plain,
    )
    (out / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    say(f"{name}: dev nDCG@10 {found:.3f}, base {plain:.3f}; wrote {out}")


def say(line: str) -> None:
    from coe.cli.terminal import Terminal

    Terminal(soft_wrap=True).print(line)


def pilots(
    out: Annotated[Path, typer.Option(help="folder of the library; one that is there is extended")],
    data: Annotated[Path, typer.Option(help="a collection in BEIR layout, or a folder of them")],
    config: ConfigOption = Path("experts.yaml"),
    rebuild: Annotated[bool, typer.Option("--rebuild", help="measure everything again")] = False,
) -> None:
    """Label train queries with every expert's nDCG@10 and choose settings on dev; add an expert or a collection."""
    from coe.cli.progress import console_progress
    from coe.retrieval.build_experts import build_experts
    from coe.retrieval.routing.pilot_library import is_library, load_library, save_library
    from coe.retrieval.training.collection import find_collections, read_collection

    old = load_library(out) if is_library(out) and not rebuild else None
    experts = build_experts(retrieval_section(config), config.resolve().parent)
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


def retrieval_section(config: Path) -> RetrievalConfig:
    """Return the retrieval section of experts.yaml; may raise ConfigError."""
    from coe.router.config.composition import load_config

    section = load_config(config).retrieval
    if section is None:
        raise ConfigError(f"{config}: has no 'retrieval' section; add one")
    return section


def measured_library(
    old: PilotLibrary | None,
    collections: Sequence[Collection],
    experts: dict[str, RetrievalExpert],
    cache: Path,
    now: str,
    progress: Callable[[str], None],
) -> PilotLibrary:
    """Return a new library, or `old` with what it lacks; settings are chosen again on dev queries."""
    from coe.retrieval.training.build_library import extend_library, require_same_experts
    from coe.retrieval.training.labels import label_collections, label_pilots, locate
    from coe.retrieval.training.routing_tuning import tuned
    from coe.retrieval.training.searcher import Searcher, all_arms

    fingerprints = {name: expert.fingerprint for name, expert in experts.items()}
    if old is not None:
        require_same_experts(old, fingerprints)
    searchers = [Searcher(collection, experts, cache, progress) for collection in collections]
    labelled, arms = label_pilots(searchers, all_arms(experts), () if old is None else old.arms)
    located = locate(searchers)
    library = extend_library(old, labelled, arms, fingerprints, created_at=now, located=located)
    progress("labelling dev queries")
    dev = label_collections(searchers, library.arms, lambda collection: collection.split("dev"))
    return tuned(library, dev, fingerprints)
