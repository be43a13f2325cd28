"""Cutting a text into chunks of at most so many tokens, where a paragraph or a sentence ends if one does nearby.

Tokens are estimated without a tokenizer: a word counts one for each 6 characters begun, a sign one, a character of
Chinese, Japanese or Korean one. On English text that is close to what sub-word vocabularies make of it (ours).
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Literal

from pydantic import Field, model_validator

from gateway.request_bodies import Body

PIECE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")
WORD = re.compile(r"\S{1,60}")  # a longer run is cut, so that every word fits every chunk
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", ":", ";")
CHARS_PER_TOKEN = 6
EARLIEST_CUT = 0.6  # share of a chunk that is filled before it may end at a sentence


class StaticChunking(Body):
    """OpenAI's static strategy."""

    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    chunk_overlap_tokens: int = Field(ge=0)

    @model_validator(mode="after")
    def overlap_is_at_most_half(self) -> StaticChunking:
        if 2 * self.chunk_overlap_tokens > self.max_chunk_size_tokens:
            raise ValueError(
                f"chunk_overlap_tokens is {self.chunk_overlap_tokens}; allowed: at most half of max_chunk_size_tokens "
                f"({self.max_chunk_size_tokens})"
            )
        return self


class AutoStrategy(Body):
    """The gateway chooses."""

    type: Literal["auto"]


class StaticStrategy(Body):
    """The client chooses."""

    type: Literal["static"]
    static: StaticChunking


ChunkingStrategy = AutoStrategy | StaticStrategy


def count_tokens(text: str) -> int:
    """Estimated tokens of a text."""
    return sum(-(-len(piece) // CHARS_PER_TOKEN) for piece in PIECE.findall(text))


def chunk(text: str, strategy: StaticChunking) -> list[str]:
    """The chunks of a text in order; none for a text without words. Linear in the text."""
    return [text[start:end] for start, end in chunk_spans(text, strategy)]


def chunk_spans(text: str, strategy: StaticChunking) -> list[tuple[int, int]]:
    """Where chunks begin and end. Every word is in one, and neighbours share at most the overlap."""
    words = [(match.start(), match.end()) for match in WORD.finditer(text)]
    sizes = [count_tokens(text[start:end]) for start, end in words]
    before = [0, *accumulate(sizes)]  # tokens before word i
    spans: list[tuple[int, int]] = []
    first = 0
    while first < len(words):
        limit = first + 1
        while limit < len(words) and before[limit + 1] - before[first] <= strategy.max_chunk_size_tokens:
            limit += 1
        last = limit if limit == len(words) else best_cut(text, words, first, limit)
        spans.append((words[first][0], words[last - 1][1]))
        if last == len(words):
            break
        following = last
        while following > first + 1 and before[last] - before[following - 1] <= strategy.chunk_overlap_tokens:
            following -= 1
        first = following
    return spans


def best_cut(text: str, words: list[tuple[int, int]], first: int, limit: int) -> int:
    """The word that the next chunk begins with: after the last paragraph or else sentence that ends late enough."""
    earliest = first + max(1, int((limit - first) * EARLIEST_CUT))
    sentence = None
    for cut in range(limit, earliest - 1, -1):
        end, following = words[cut - 1][1], words[cut][0]
        if text.count("\n", end, following) > 1:
            return cut
        if sentence is None and (text[end - 1] in SENTENCE_ENDS or "\n" in text[end:following]):
            sentence = cut
    return sentence or limit
