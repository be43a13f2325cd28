"""YAML as people write it: a key that stands twice in one mapping is an error, for one of its values would be lost."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError

from router.errors import ConfigError

MERGE_TAG = "tag:yaml.org,2002:merge"


class StrictLoader(yaml.SafeLoader):
    """Plain values only, each key once. Keys that `<<` merges are no second time, they give way to a mapping's own."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where mappings are constructed: by then merged keys stand among a mapping's own.
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_TAG:
                if (key.tag, key.value) in seen:
                    raise ComposerError(
                        None, None, f"the key '{key.value}' stands twice in one mapping", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


def read_yaml(text: str, *, file: str) -> object:
    """The plain values of one document.

    Raises:
        ConfigError: it is no YAML, nested too deep, or has a key twice.
    """
    try:
        return yaml.load(text, StrictLoader)
    except RecursionError as error:
        raise ConfigError(f"{file}: is not valid YAML: nested too deep") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a scalar such as the date 2024-02-31
        raise ConfigError(f"{file}: is not valid YAML: {' '.join(str(error).split())}") from error
