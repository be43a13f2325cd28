"""BM25 (Robertson & Zaragoza 2009) over stemmed words, by bm25s: an expert without vectors.

It does not detect the language of a text. Snowball stems a word by its script, and only its first six letters count,
because a Latin word may be of any language. That stems German and Romanian about as well as their own stemmers, and
costs English nothing (benchmarks/LOG.md). In scripts without spaces every two adjacent characters are a word, as in
Lucene's analyser for Chinese, Japanese and Korean.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from coe.base.errors import ConfigError
from coe.retrieval.types import EVIDENCE, ExpertOf
from coe.router.reading.features import fingerprint
from coe.router.types import BoolArray, FloatArray, IntArray, Record

if TYPE_CHECKING:
    from bm25s import BM25

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters of Thai, Lao, Burmese, Khmer, Japanese, Chinese and Korean, for a set in a regular expression."""

ANY = "any"
STEMMERS = {"greek": "\u0370\u03ff", "russian": "\u0400\u04ff", "arabic": "\u0600\u06ff", "hindi": "\u0900\u097f"}
"""Snowball's stemmer for words whose first character lies in this range; other words get the English one."""

STEM_LETTERS = 6
"""Letters of a stem that count (benchmarks/LOG.md)."""

LONG = 1000
"""Number of words of a document whose length feature is 1."""


class Options(Record):
    k1: float = Field(default=1.2, ge=0, description="how soon a repeated word stops counting")
    b: float = Field(default=0.75, ge=0, le=1, description="how much a long document is held back")
    language: str = Field(default=ANY, description="Snowball stemmer, 'any' by script; 'none' leaves words as they are")
    stopwords: Literal["english", "none"] = "english"
    max_query_words: int = Field(default=256, ge=1, description="words of a query after these are not read")


@dataclass(frozen=True)
class Bm25Index:
    """An index of documents, one per row; the words of document i are `tokens[starts[i] : starts[i + 1]]`.

    `rarity` (v,) is each word's inverse document frequency. Words of a query that are in no document are ignored.
    """

    engine: BM25 | None
    vocabulary: dict[str, int]
    words_of: Callable[[str], list[str]]
    count: int
    tokens: NDArray[np.int32]
    starts: IntArray
    rarity: FloatArray

    def search(self, text: str, count: int, wanted: BoolArray | None = None) -> tuple[IntArray, FloatArray]:
        words = [word for word in self.words_of(text) if word in self.vocabulary]
        if self.engine is None or not words or count < 1:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        scores = np.asarray(self.engine.get_scores(words), dtype=np.float32)
        if wanted is not None:
            scores *= wanted
        kept = min(count, self.count)
        rows = np.argpartition(-scores, kept - 1)[:kept]
        rows = rows[scores[rows] > 0]
        rows = rows[np.lexsort((rows, -scores[rows]))]
        return rows.astype(np.int64), scores[rows]

    def evidence(self, text: str, rows: IntArray) -> FloatArray:
        """Return coverage, phrases and length of documents at rows (k,), shape (k, 3).

        A phrase is two adjacent words of the query without stop words (Metzler & Croft 2005). Length is on a
        logarithmic scale on which `LONG` words are 1.
        """
        words = [self.vocabulary[word] for word in self.words_of(text) if word in self.vocabulary]
        found = np.zeros((len(rows), len(EVIDENCE)), dtype=np.float32)
        found[:, 2] = np.minimum(np.log1p(self.starts[rows + 1] - self.starts[rows]) / np.log1p(LONG), 1)
        if not words:
            return found
        distinct, place = np.unique(words, return_inverse=True)
        of, spot = self.words_at(rows, distinct)
        is_asked = spot >= 0
        rarity = self.rarity[distinct]
        held = presence(of[is_asked], spot[is_asked], (len(rows), len(distinct)))
        found[:, 0] = held @ rarity / max(float(rarity.sum()), 1e-9)
        pairs = np.unique(place[:-1] * len(distinct) + place[1:])
        if len(pairs):
            is_pair = is_asked[:-1] & is_asked[1:] & (of[:-1] == of[1:])
            seen = spot[:-1][is_pair] * len(distinct) + spot[1:][is_pair]
            is_phrase = np.isin(seen, pairs)
            phrase = np.searchsorted(pairs, seen[is_phrase])
            found[:, 1] = presence(of[:-1][is_pair][is_phrase], phrase, (len(rows), len(pairs))).mean(axis=1)
        return found

    def words_at(self, rows: IntArray, distinct: IntArray) -> tuple[IntArray, IntArray]:
        """Return for each word of the documents its document's place in `rows`, and its own in `distinct` or -1."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        of = np.repeat(np.arange(len(rows)), lengths)
        begins = np.repeat(self.starts[rows] - np.cumsum(lengths) + lengths, lengths)
        tokens = self.tokens[begins + np.arange(len(of))]
        spot = np.minimum(np.searchsorted(distinct, tokens), len(distinct) - 1)
        return of, np.where(distinct[spot] == tokens, spot, -1)


def presence(row: IntArray, column: IntArray, shape: tuple[int, int]) -> FloatArray:
    """Return an array with 1 at the given places and 0 elsewhere."""
    found = np.zeros(shape, dtype=np.float32)
    found[row, column] = 1
    return found


@dataclass(frozen=True)
class Bm25Expert:
    """An expert over texts by Lucene's variant, in which no term has a negative weight (Kamphuis et al. 2020)."""

    name: str
    options: Options

    @property
    def space(self) -> str:
        return fingerprint("bm25", self.options.model_dump_json(exclude={"max_query_words"}))

    @property
    def fingerprint(self) -> str:
        return fingerprint("bm25", self.options.model_dump_json())

    def words(self, text: str) -> list[str]:
        """Return stems in order of appearance, without stop words."""
        ignored, language = stop_words(self.options.stopwords), self.options.language
        found = [word for word in words_in(text) if word not in ignored]
        if language == "none":
            return found
        return stems_by_script(found) if language == ANY else stemmer(language)(found)

    def query_words(self, text: str) -> list[str]:
        """Return the stems of a query, at most `max_query_words`."""
        return self.words(text)[: self.options.max_query_words]

    def index(self, texts: Sequence[str]) -> Bm25Index:
        from bm25s import BM25

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # at its import it asks for every message
        corpus = [self.words(text) for text in texts]
        vocabulary = {word: number for number, word in enumerate(dict.fromkeys(w for words in corpus for w in words))}
        numbers = [[vocabulary[word] for word in words] for words in corpus]
        engine = None
        if vocabulary:
            engine = BM25(k1=self.options.k1, b=self.options.b, method="lucene", backend="numpy")
            engine.index((numbers, vocabulary), show_progress=False)
        frequency = np.bincount([n for words in numbers for n in set(words)], minlength=len(vocabulary))
        return Bm25Index(
            engine,
            vocabulary,
            self.query_words,
            len(texts),
            tokens=np.array([n for words in numbers for n in words], dtype=np.int32),
            starts=np.cumsum([0, *(len(words) for words in numbers)], dtype=np.int64),
            rarity=np.log1p((len(texts) - frequency + 0.5) / (frequency + 0.5)).astype(np.float32),
        )


@cache
def word_pattern() -> re.Pattern[str]:
    """Return a pattern for an unspaced run of characters, or for a word with its vowel signs and accents."""
    marks = "".join(sign for sign in map(chr, range(0x300, 0x1E00)) if unicodedata.category(sign)[0] == "M")
    return re.compile(rf"([{UNSPACED}]+)|((?:[^\W{UNSPACED}]|[{marks}])+)")


def words_in(text: str) -> list[str]:
    """Return the words of a text in order, in lower case."""
    if text.isascii():
        return re.findall(r"\w+", text.lower())
    found = []
    for run, word in word_pattern().findall(unicodedata.normalize("NFKC", text).lower()):
        found += [run[i : i + 2] for i in range(max(len(run) - 1, 1))] if run else [word]
    return found


def stems_by_script(words: Sequence[str]) -> list[str]:
    stems = stemmer("english")(list(words))
    for i, word in enumerate(words):
        if not word.isascii():
            language = next((name for name, ends in STEMMERS.items() if ends[0] <= word[0] <= ends[1]), "english")
            stems[i] = stemmer(language)([word])[0]
    return [stem[:STEM_LETTERS] if stem.isalpha() else stem for stem in stems]


@cache
def stop_words(language: str) -> frozenset[str]:
    from bm25s.stopwords import STOPWORDS_EN

    return frozenset(STOPWORDS_EN) if language == "english" else frozenset()


@cache
def stemmer(language: str) -> Callable[[list[str]], list[str]]:
    from Stemmer import Stemmer

    stem: Callable[[list[str]], list[str]] = Stemmer(language).stemWords

    def stems(words: list[str]) -> list[str]:
        """Return stems; a word of which the stemmer leaves nothing, such as the Greek for "same", stays as it is."""
        return [stemmed or word for stemmed, word in zip(stem(words), words, strict=True)]

    return stems


def build(options: Options) -> ExpertOf:
    """Return a builder of BM25 experts; raise ConfigError for a language without a stemmer."""
    if options.language not in (ANY, "none"):
        from Stemmer import algorithms

        if options.language not in algorithms():
            raise ConfigError(
                f"bm25: no stemmer for language '{options.language}'; allowed: any, none, {', '.join(algorithms())}"
            )
    return lambda name, base: Bm25Expert(name, options)  # over any base: it uses none


IMPORTS = ("bm25s", "Stemmer")
EXAMPLES = (Options(), Options(k1=0.9, b=0.4, language="none", stopwords="none"))
