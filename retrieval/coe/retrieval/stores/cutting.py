"""Chunks of a text with a limit on tokens, ended at a paragraph or a sentence if one ends nearby.

Tokens are estimated without a tokenizer. A word counts one per 6 characters or part of them; a sign counts one, and so
does a Chinese, Japanese or Korean character. On English text that is close to sub-word vocabularies (our choice).

The process that reads files imports this module, so it uses only the standard library.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator

PIECE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")
WORD = re.compile(r"\S{1,60}")  # a longer run is cut, so that every word fits every chunk
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", ":", ";")
CHARS_PER_TOKEN = 6
EARLIEST_CUT = 0.6  # share of a chunk that is filled before it may end at a sentence


def count_tokens(text: str) -> int:
    """Return the estimated tokens of a text."""
    if text.isascii() and text.isalnum():  # one word, as most texts here are
        return -(-len(text) // CHARS_PER_TOKEN)
    return sum(-(-len(piece) // CHARS_PER_TOKEN) for piece in PIECE.findall(text))


class Words:
    """Start and end of the words of a text, and the tokens before each, in 12 bytes per word."""

    def __init__(self, text: str) -> None:
        self.starts, self.ends, self.before = array("I"), array("I"), array("I", [0])
        for match in WORD.finditer(text):
            self.starts.append(match.start())
            self.ends.append(match.end())
            self.before.append(self.before[-1] + count_tokens(match[0]))

    def __len__(self) -> int:
        return len(self.starts)


def chunk_spans(text: str, max_tokens: int, overlap_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each chunk, in order. Every word is in a chunk.

    Neighbours share at most the overlap, and at most half of the first one. So the chunks together have at most twice
    the text, and the time is linear in it.
    """
    words = Words(text)
    before = words.before
    first = 0
    while first < len(words):
        limit = first + 1
        while limit < len(words) and before[limit + 1] - before[first] <= max_tokens:
            limit += 1
        last = limit if limit == len(words) else best_cut(text, words, first, limit)
        yield words.starts[first], words.ends[last - 1]
        if last == len(words):
            return
        shared = min(overlap_tokens, (before[last] - before[first]) // 2)
        first_shared = last
        while first_shared > first + 1 and before[last] - before[first_shared - 1] <= shared:
            first_shared -= 1
        first = first_shared


def best_cut(text: str, words: Words, first: int, limit: int) -> int:
    """Return the first word of the next chunk: after the last paragraph, else sentence, that ends late enough."""
    earliest = first + max(1, int((limit - first) * EARLIEST_CUT))
    sentence = None
    for cut in range(limit, earliest - 1, -1):
        end, following = words.ends[cut - 1], words.starts[cut]
        if text.count("\n", end, following) > 1:
            return cut
        if sentence is None and (text[end - 1] in SENTENCE_ENDS or "\n" in text[end:following]):
            sentence = cut
    return sentence or limit
