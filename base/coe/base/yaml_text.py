"""A YAML reader with limits. A repeated key in a mapping is an error, because one of its values would be lost."""

from __future__ import annotations

from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.composer import Composer, ComposerError
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.reader import ReaderError
from yaml.resolver import Resolver

from coe.base.errors import ConfigError

MERGE_TAG = "tag:yaml.org,2002:merge"

MOST_CHARACTERS = 4 << 20
"""Characters in a text with all aliases expanded: a few nested aliases can expand to billions of values."""

VALUE_CHARACTERS = 40
"""Characters that each key or value counts at least, so that a text has at most about 100,000 (half a second)."""

MOST_LEVELS = 64
"""Levels of nesting."""


class StrictLoader(Composer, CParser, SafeConstructor, Resolver):
    """A loader of plain values with unique keys and limits; a mapping's own key may replace one merged by `<<`."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._levels = self._characters = 0
        self._sizes: dict[str, int] = {}  # by anchor, with aliases written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        before = self._characters
        is_alias = isinstance(event, yaml.AliasEvent)
        self._characters += max(
            VALUE_CHARACTERS, self._sizes.get(event.anchor, 0) if is_alias else len(getattr(event, "value", ""))
        )
        self._levels += 1
        if problem := self._problem(event, is_alias=is_alias):
            raise ComposerError(None, None, problem, event.start_mark)
        node = super().compose_node(parent, index)
        self._levels -= 1
        if event.anchor is not None and not is_alias:
            self._sizes[event.anchor] = self._characters - before
        return node

    def _problem(self, event: Any, *, is_alias: bool) -> str:
        if is_alias and event.anchor in self.anchors and event.anchor not in self._sizes:
            return f"'*{event.anchor}' is inside the value that it names"
        if self._levels > MOST_LEVELS:
            return f"nested more than {MOST_LEVELS} levels deep"
        if self._characters > MOST_CHARACTERS:
            written = "with aliases written out and each key and value counted as at least"
            return f"more than {MOST_CHARACTERS:,} characters, {written} {VALUE_CHARACTERS}"
        return ""

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
        """Build a value. PyYAML trusts its tag: `!!bool maybe` ends in a KeyError, `!!int ''` in an IndexError."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            written = repr(node.value)[:80] if isinstance(node, yaml.ScalarNode) else "the value"
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            reason = f": {error}" if isinstance(error, ValueError) else ""
            raise ConstructorError(None, None, f"{written} is not a valid {kind}{reason}", node.start_mark) from error


def read_yaml(text: str, *, file: str) -> object:
    """Return the plain values of one document.

    Raises:
        ConfigError: not YAML, over a limit, a repeated key, or a value that does not match its tag.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{file}: has {len(text):,} characters; allowed: up to {MOST_CHARACTERS:,}")
    try:
        return StrictLoader(text).get_single_data()
    except ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise ConfigError(f"{file}:{line}: is not valid YAML: U+{error.character:04X} is not allowed") from error
    except yaml.MarkedYAMLError as error:  # its own text also shows the line, in which a key may be
        mark, reasons = error.problem_mark, filter(None, (error.context, error.problem))
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        hint = "; indent with spaces" if mark and text[mark.index : mark.index + 1] == "\t" else ""
        raise ConfigError(f"{place}: is not valid YAML: {', '.join(reasons)}{hint}") from error
