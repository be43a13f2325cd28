"""Tokenizers of Hugging Face's library, from their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coe.base.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def open_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer of a `tokenizer.json`, or raise ConfigError if the file is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ConfigError(f"{path}: is not a tokenizer.json ({error})") from error


def head_and_tail(tokens: Sequence[int], limit: int) -> Sequence[int]:
    """Return the first and the last of too many tokens, `limit` in all: an ask is at the head or at the tail."""
    return tokens if len(tokens) <= limit else [*tokens[: limit - limit // 2], *tokens[-(limit // 2) :]]
