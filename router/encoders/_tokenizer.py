"""Tokenizer files of Hugging Face's tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from base.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`. Raises ConfigError when the file is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ConfigError(f"{path}: is not a tokenizer.json ({error})") from error
