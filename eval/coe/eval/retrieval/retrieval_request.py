"""The request of `coe eval retrieval`, and the experts that it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from coe.base.errors import ConfigError
from coe.retrieval.build_experts import BASE_OF_ADAPTERS, adapter_entries
from coe.router.config import load_config
from coe.router.retrieval_config import RetrievalConfig
from coe.router.section import PluginConfig
from coe.router.types import Record

BM25 = "bm25"


class RetrievalOptions(Record):
    """Options that are taken as they are given."""

    data: Path = Field(description="a collection in BEIR layout, or a folder of them")
    out: Path = Field(description="folder for report.html, report.json and the pilot library")
    experts: list[Path] | None = Field(
        default=None, description="experts.yaml, an adapter, or a folder of adapters; may be given several times"
    )


class RetrievalRequest(RetrievalOptions):
    cache: Path
    command: str
    seed: int = 0


def requested_experts(sources: Sequence[Path]) -> tuple[RetrievalConfig, Path]:
    """The section to build, and the folder that its paths start from. BM25 is always among the experts.

    Args:
        sources: experts.yaml files, adapters, or folders of adapters.

    Raises:
        ConfigError: a source is none of these, two name one expert, or the files differ in their base.
    """
    entries: dict[str, PluginConfig] = {}
    base: PluginConfig | None = None
    root = Path()
    for source in sources:
        if not source.exists():
            raise ConfigError(
                f"--experts {source}: does not exist; expected experts.yaml, an adapter or a folder of them"
            )
        found = adapter_entries(source) if source.is_dir() else {}
        if source.is_file():
            section = load_config(source).retrieval
            if section is None:
                raise ConfigError(f"{source}: has no 'retrieval' section")
            if base is not None and section.encoder != base:
                raise ConfigError(f"{source}: retrieval.encoder differs from that of the file before")
            base, root, found = section.encoder, source.parent, section.experts
        for name, entry in found.items():
            if name in entries:
                raise ConfigError(f"--experts {source}: expert '{name}' is already there")
            entries[name] = entry
    if not any(entry.kind == BM25 for entry in entries.values()):
        entries = {BM25: PluginConfig(kind=BM25), **entries}
    return RetrievalConfig(encoder=base or BASE_OF_ADAPTERS, experts=entries), root
