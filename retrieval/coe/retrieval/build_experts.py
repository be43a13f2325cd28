"""The `retrieval` section of experts.yaml, and its live experts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from coe.base.errors import ConfigError
from coe.base.extras import require_installed
from coe.retrieval.experts.adapter import MANIFEST_FILE
from coe.retrieval.types import BASE, BaseExpert, ExpertOf, LexicalExpert, RetrievalExpert
from coe.router import plugins
from coe.router.protocols import Encoder
from coe.router.retrieval_config import RetrievalConfig
from coe.router.section import PluginConfig
from coe.router.weights import expanded

FAMILY = "retrieval.experts"

BASE_OF_ADAPTERS = PluginConfig(kind="bert")
"""The base of a folder of adapters, for which `coe retrieval train` trains; coe-offline brings it."""


def require_stores() -> None:
    """Raises MissingExtraError where the packages that read documents are not installed."""
    require_installed("retrieval in experts.yaml", "faiss", "lxml", "pypdf")


def build_experts(config: RetrievalConfig, root: Path) -> dict[str, RetrievalExpert]:
    """Every expert by name, `base` first.

    Args:
        root: folder that relative paths start from: the one of experts.yaml.

    Raises:
        ConfigError, MissingWeightsError, MissingExtraError: an option is wrong, or what it names is not there.
        ArtifactError: an adapter is damaged or was made for another base.
    """
    encoder = cast(Encoder, plugins.build("router.encoders", config.encoder.kind, config.encoder.options))
    experts: dict[str, RetrievalExpert] = {BASE: BaseExpert(encoder)}
    for name, entry in config.experts.items():
        experts[name] = build_expert(name, entry, root, encoder)
    return experts


def build_expert(name: str, entry: PluginConfig, root: Path, base: Encoder) -> RetrievalExpert:
    """One expert. Raises as `build_experts`."""
    options = dict(entry.options)
    if "path" in options:
        options["path"] = str(root / expanded(str(options["path"])))
    try:
        expert_of = cast(ExpertOf, plugins.build(FAMILY, entry.kind, options))
    except ConfigError as error:
        raise ConfigError(f"retrieval.experts.{name}: {error}") from error
    return expert_of(name, base)


def pilots_folder(config: RetrievalConfig, root: Path) -> Path | None:
    """The folder of the section's pilot library, which may not exist yet; None where it names none.

    `root` is as for `build_experts`.
    """
    return None if config.pilots is None else root / expanded(config.pilots)


def first_lexical(experts: Mapping[str, RetrievalExpert]) -> str | None:
    """Name of the first expert that searches words; None without one."""
    return next((name for name, expert in experts.items() if isinstance(expert, LexicalExpert)), None)


def adapter_entries(folder: Path) -> dict[str, PluginConfig]:
    """Experts of a folder of adapters, named by their folders; or of one adapter's own folder.

    Raises:
        ConfigError: there is no adapter.
    """
    folders = [folder] if (folder / MANIFEST_FILE).is_file() else sorted(folder.glob(f"*/{MANIFEST_FILE}"))
    names = [path if path.is_dir() else path.parent for path in folders]
    if not names:
        raise ConfigError(f"{folder}: holds no adapter; expected folders that `coe retrieval train` wrote")
    return {path.name: PluginConfig.model_validate({"kind": "adapter", "path": str(path.absolute())}) for path in names}
