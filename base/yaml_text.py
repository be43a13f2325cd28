"""YAML as people write it: a key that appears twice in a mapping is an error, because one value would be lost."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from base.errors import ConfigError

MERGE_TAG = "tag:yaml.org,2002:merge"


class StrictLoader(yaml.SafeLoader):
    """Plain values only, each key once. Keys merged by `<<` are not repeats: a mapping's own keys replace them."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where mappings are constructed: by then merged keys are among a mapping's own.
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_TAG:
                if (key.tag, key.value) in seen:
                    raise ComposerError(
                        None, None, f"the key '{key.value}' appears twice in one mapping", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """PyYAML trusts a tag, so `!!bool maybe` ends in a KeyError, `!!int ''` in an IndexError and so on."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()  # half of a surrogate pair, which an escape can make, is not text
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            written = repr(node.value)[:80] if isinstance(node, yaml.ScalarNode) else "the value"
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            reason = f": {error}" if isinstance(error, ValueError) else ""
            raise ConstructorError(None, None, f"{written} is not a valid {kind}{reason}", node.start_mark) from error
        return value


def read_yaml(text: str, *, file: str) -> object:
    """The plain values of one document.

    Raises:
        ConfigError: it is not YAML, nested too deep, has a key twice, or a value that is not what its tag says.
    """
    try:
        return yaml.load(text, StrictLoader)
    except RecursionError as error:
        raise ConfigError(f"{file}: is not valid YAML: nested too deep") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{file}:{line}: is not valid YAML: U+{error.character:04X} is not allowed") from error
    except yaml.MarkedYAMLError as error:  # its own text also shows the line, in which a key may be
        mark, reasons = error.problem_mark, filter(None, (error.context, error.problem))
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        hint = "; indent with spaces" if "'\\t'" in (error.problem or "") else ""
        raise ConfigError(f"{place}: is not valid YAML: {', '.join(reasons)}{hint}") from error
