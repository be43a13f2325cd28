"""A run of the evaluation, and the experts that it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coe.base.errors import ConfigError
from coe.router.config.composition import load_config
from coe.router.config.retrieval import RetrievalConfig
from coe.router.section import PluginConfig

BM25 = "bm25"


@dataclass(frozen=True)
class RetrievalRequest:
    """`data` is a collection in BEIR layout or a folder of them; `experts` an experts.yaml; `cache` keeps
    embeddings."""

    data: Path
    experts: Path | None
    cache: Path
    command: str
    seed: int = 0


def requested_experts(file: Path | None) -> tuple[RetrievalConfig, Path]:
    """The section to build, and the folder that its paths start from. BM25 is always among the experts.

    Args:
        file: experts.yaml; None compares kind `bert`, of coe-offline, with BM25.

    Raises:
        ConfigError: it does not exist, or has no such section.
    """
    section, root = RetrievalConfig(encoder=PluginConfig(kind="bert")), Path()
    if file is not None:
        if not file.is_file():
            raise ConfigError(f"--experts {file}: does not exist; expected experts.yaml")
        named, root = load_config(file).retrieval, file.parent
        if named is None:
            raise ConfigError(f"{file}: has no 'retrieval' section")
        section = named
    if any(entry.kind == BM25 for entry in section.experts.values()):
        return section, root
    return section.model_copy(update={"experts": {BM25: PluginConfig(kind=BM25), **section.experts}}), root
