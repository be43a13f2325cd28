"""The `retrieval` section of experts.yaml, and its live experts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from coe.base.errors import ConfigError
from coe.base.extras import require_installed
from coe.retrieval.types import BASE, BaseExpert, ExpertOf, LexicalExpert, RetrievalExpert
from coe.router import plugins
from coe.router.config.retrieval import RetrievalConfig
from coe.router.model_files.weights import expanded
from coe.router.protocols import Encoder
from coe.router.section import PluginConfig

FAMILY = "retrieval.experts"


def require_stores() -> None:
    """Check that the packages that read documents are installed; raise MissingExtraError if not."""
    require_installed("retrieval in experts.yaml", "faiss", "lxml", "pypdf")


def build_experts(config: RetrievalConfig, root: Path) -> dict[str, RetrievalExpert]:
    """Build every expert by name, `base` first.

    Args:
        root: folder that relative paths start from: the one of experts.yaml.

    Raises:
        ConfigError, MissingWeightsError, MissingExtraError: an option is invalid, or what it names is missing.
        ArtifactError: an expert was trained for another base.
    """
    encoder = cast(Encoder, plugins.build("router.encoders", config.encoder.kind, config.encoder.options))
    experts: dict[str, RetrievalExpert] = {BASE: BaseExpert(encoder)}
    for name, entry in config.experts.items():
        experts[name] = build_expert(name, entry, root, encoder)
    return experts


def build_expert(name: str, entry: PluginConfig, root: Path, base: Encoder) -> RetrievalExpert:
    """Build one expert; errors as in `build_experts`."""
    options = dict(entry.options)
    if "path" in options:
        options["path"] = str(root / expanded(str(options["path"])))
    try:
        expert_of = cast(ExpertOf, plugins.build(FAMILY, entry.kind, options))
    except ConfigError as error:
        raise ConfigError(f"retrieval.experts.{name}: {error}") from error
    return expert_of(name, base)


def pilots_folder(config: RetrievalConfig, root: Path) -> Path | None:
    """Return the folder of the pilot library, which may not exist yet, or None; `root` is that of experts.yaml."""
    return None if config.pilots is None else root / expanded(config.pilots)


def first_lexical(experts: Mapping[str, RetrievalExpert]) -> str | None:
    """Return the name of the first expert that searches words; None if there is none."""
    return next((name for name, expert in experts.items() if isinstance(expert, LexicalExpert)), None)
