"""Cutting a text into chunks of at most so many tokens, where a paragraph or a sentence ends if one does nearby.

Tokens are estimated without a tokenizer: a word counts one for each 6 characters begun, a sign one, a character of
Chinese, Japanese or Korean one. On English text that is close to what sub-word vocabularies make of it (ours).

The process that reads files imports this module: standard library only.
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
    """Estimated tokens of a text."""
    if text.isascii() and text.isalnum():  # one word, as most texts here are
        return -(-len(text) // CHARS_PER_TOKEN)
    return sum(-(-len(piece) // CHARS_PER_TOKEN) for piece in PIECE.findall(text))


class Words:
    """Begin and end of the words of a text, and the tokens before each, in 12 bytes a word."""

    def __init__(self, text: str) -> None:
        self.starts, self.ends, self.before = array("I"), array("I"), array("I", [0])
        for match in WORD.finditer(text):
            self.starts.append(match.start())
            self.ends.append(match.end())
            self.before.append(self.before[-1] + count_tokens(match[0]))

    def __len__(self) -> int:
        return len(self.starts)


def chunk_spans(text: str, max_tokens: int, overlap_tokens: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each chunk, in order; none for a text without words. Every word is in one.

    Neighbours share at most the overlap, and at most half of the first one: so the chunks together are at most twice
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
    """The word that the next chunk begins with: after the last paragraph or else sentence that ends late enough."""
    earliest = first + max(1, int((limit - first) * EARLIEST_CUT))
    sentence = None
    for cut in range(limit, earliest - 1, -1):
        end, following = words.ends[cut - 1], words.starts[cut]
        if text.count("\n", end, following) > 1:
            return cut
        if sentence is None and (text[end - 1] in SENTENCE_ENDS or "\n" in text[end:following]):
            sentence = cut
    return sentence or limit
