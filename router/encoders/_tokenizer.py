"""Tokenizer files: SentencePiece models and those of Hugging Face's tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from base.errors import ConfigError
from router.encoders._words import ByWord

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

SPACE = "\u2581"
"""Stands for a space in pieces."""


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`. Raises ConfigError when the file is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ConfigError(f"{path}: is not a tokenizer.json ({error})") from error


class Pieces:
    """Tokens of texts by a SentencePiece model, in a tenth of the time and a third of the memory of the tokenizers
    library.

    Where all pieces lie within words, those of usual words are kept. Of ways to cut a text that the model finds equally
    likely, as where a letter is repeated, it may then take another one.

    Raises:
        ConfigError: the file is not such a model.
    """

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor()
        try:
            processor.load(str(path))
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"{path}: is not a SentencePiece model") from error
        self.unknown: int = processor.unk_id()
        self._whole: Callable[[str], list[int]] | None = None if cuts_at_spaces(processor) else processor.encode
        self._of_word = ByWord[Sequence[int]](processor.encode)

    def encode(self, text: str) -> list[int]:
        if self._whole is not None:
            return self._whole(text)
        return list(chain.from_iterable(map(self._of_word.__getitem__, text.split(" "))))


def cuts_at_spaces(processor: SentencePieceProcessor) -> bool:
    """Returns True where a text's tokens are those of its words one after another."""
    count = processor.get_piece_size()
    pieces = (processor.id_to_piece(list(range(i, min(i + 1000, count)))) for i in range(0, count, 1000))
    lie_within = all(SPACE not in piece[1:] for piece in chain.from_iterable(pieces))
    return lie_within and processor.encode("a a") == 2 * processor.encode("a")


def head_and_tail(tokens: Sequence[int], limit: int) -> Sequence[int]:
    """The first and the last tokens of a longer text, `limit` in all: what is asked is at the head or at the tail."""
    return tokens if len(tokens) <= limit else [*tokens[: limit - limit // 2], *tokens[-(limit // 2) :]]
