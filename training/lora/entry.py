"""A new expert's entry in experts.yaml: added as text, so that the file keeps its comments and order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from base.errors import ConfigError
from router.config import config_text, parse_text
from router.expert_config import ExpertConfig

KEPT = ("engine", "model", "url", "api_key_env", "engine_args", "engine_env", "params_b", "active_params_b")
KEPT_OF_ANSWERS = ("context_tokens", "supports_images", "supports_tools", "supports_json")


def adapted_entry(base: ExpertConfig, name: str, adapter: Path, folder: Path, description: str) -> dict[str, Any]:
    """The base's entry with an adapter, whose path begins where experts.yaml lies if it is below."""
    own = base.model_dump(mode="json", include={*KEPT, *KEPT_OF_ANSWERS}, exclude_defaults=True)
    place = adapter.resolve()
    shown = place.relative_to(folder.resolve()) if place.is_relative_to(folder.resolve()) else place
    served = {} if base.url is None else {"served_model": name}
    return {**own, **served, "adapter": str(shown), "description": description}


def add_expert(file: Path, name: str, entry: dict[str, Any]) -> None:
    """Adds an expert behind the others.

    Raises:
        ConfigError: the experts are not written as a block, or the file would not be valid.
    """
    text = config_text(file)
    experts = experts_node(text)
    if experts is None or experts.flow_style:
        shown = yaml.safe_dump({name: entry}, sort_keys=False)
        raise ConfigError(f"{file}: its experts are not written as a block; add this by hand:\n{shown}")
    lines = text.splitlines(keepends=True)
    at = experts.end_mark.line if experts.end_mark.column == 0 else len(lines)
    while at and lines[at - 1].strip().startswith(("#",)) | (not lines[at - 1].strip()):
        at -= 1
    margin = " " * experts.start_mark.column
    added = "".join(
        f"{margin}{line}\n" for line in yaml.safe_dump({name: entry}, sort_keys=False, width=1000).splitlines()
    )
    before = "".join(lines[:at])
    changed = before + ("" if before.endswith("\n") else "\n") + added + "".join(lines[at:])
    parse_text(changed, file=str(file))
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_text(changed, encoding="utf-8")
    part.chmod(file.stat().st_mode & 0o777)
    part.replace(file)


def experts_node(text: str) -> yaml.MappingNode | None:
    """The mapping of experts in the tree of the file."""
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return None
    found = [value for key, value in root.value if key.value == "experts"]
    return found[0] if found and isinstance(found[0], yaml.MappingNode) else None
