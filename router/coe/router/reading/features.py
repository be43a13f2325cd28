"""The features that a decision is made from: an embedding of unit length, in the half precision of the log.

A request is an ask, material that was pasted around it, and perhaps a task in the system prompt. A detector that
training fitted separates asks from material by their vectors. No list of words says which part is the ask, and a new
language needs none.

A router decides from what it would read back from its log, so a decision can be made again bit for bit. Rounding
changed the category of 1 of 1,500 seed queries with the default encoder and of none with the static one. No confidence
changed by more than 0.0003. The module is pure. Shapes: d dimensions, n texts.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import log
from typing import NamedTuple

import numpy as np

from coe.base.errors import DataError
from coe.router.protocols import Encoder
from coe.router.reading.conversation import in_context
from coe.router.reading.normalise import VERSION, normalise, shortened
from coe.router.types import Float64Array, FloatArray, IntArray, Query, View

STORED = np.dtype("<f2")
"""Two bytes a dimension, little-endian."""

DIGEST_BYTES = 12

MIN_CHARS, MIN_LINE_CHARS = 160, 400
"""A shorter text, or a shorter one of a single line, is read as a whole: its ends are parts of what is asked."""

MAX_ASK_CHARS = 200
MAX_CANDIDATES = 6
MAX_BETWEEN = 4
"""Short blocks amid the material that are looked at; a text with more of them, such as a chat export, has none."""

MAX_SENTENCE_CHARS, MAX_SENTENCES = 240, 8
"""Characters of a sentence and sentences of a system prompt that are read."""

TASK_SHARE = 0.8
"""Share of a system prompt's task in the vector that stage 1 reads; the user's message has the rest. Values from 0.7 to
1.0 hardly differed."""

TASK_CONFIDENCE = 0.3
"""Probability of its most likely category from which a system prompt is read as a task. Rules and a persona say little
of a category."""

CACHED_TEXTS = 256
"""Vectors that are kept in memory at most, some 4 kB each: retries and tool loops ask the same again. When there would
be more, all are given up, which threads need no lock for."""

KEPT_AT_ONCE = 16
"""The most texts of one call whose vectors are kept. Training reads more at once, and each only once."""

ASK_ODDS, ASK_SLOPE = -3.0, 2.0
"""Log odds of the likeliest ask from which it counts for more than the whole message, and how sharply. Pasted asks gain
by low ones, and messages that ask throughout lose little; -1 to -4 hardly differed."""

CLEAR_ODDS = 0.0
"""Log odds of the likeliest ask below which none is clear. Such messages are often misclassified; with a threshold of
their own the others need not be held to theirs."""

QUESTION_MARKS, COLONS = tuple("?？؟"), tuple(":：")
SHAPES = 9

QUERIES_OF_A_LETTER = 2
"""Labelled queries that make a letter known: a single one may quote a name."""

UNKNOWN_SHARE = 0.02
"""Share of a text's letters that no labelled query has, above which its language is unknown."""

BLOCK = re.compile(r"\n\s*\n|^(?:`{3,}|~{3,}|\"{3}|-{3,}|={3,})[^\n]*$", re.MULTILINE)
SENTENCE = re.compile(r"(?<=[.?!])\s+|(?<=[。？！])|\n+")

Encode = Callable[[Sequence[str]], FloatArray]
"""A function from n texts to their vectors, (n, d)."""


def fingerprint(*parts: object) -> str:
    """Return the first 32 hex digits of a SHA-256 over parts in order: file hashes, and all that changes a vector."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:32]


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Divide vectors (n, d) by their length; a zero row stays."""
    norms = np.sqrt(np.add.reduce(vectors * vectors, axis=1, keepdims=True))  # as `np.linalg.norm`, by way of less
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)


@lru_cache(maxsize=4 * KEPT_AT_ONCE)
def asked_in(text: str) -> str:
    """Return the encoder's input for a text. The last ones are cached, since a query is looked up again after its
    turn."""
    return normalise(shortened(text))


@dataclass(frozen=True)
class NormalisedEncoder:
    """An encoder that sees what a text asks, not how it is wrapped. It remembers vectors."""

    encoder: Encoder

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("normalised", VERSION, self.encoder.fingerprint)

    @property
    def is_inline(self) -> bool:
        return self.encoder.is_inline

    @cached_property
    def _kept(self) -> dict[str, FloatArray]:
        """Vectors (d,), read-only, of normalised texts."""
        return {}

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors (n, d) of the normalized texts; errors are those of the encoder."""
        if not 0 < len(texts) <= KEPT_AT_ONCE:
            return self.encoder.encode([normalise(shortened(text)) for text in texts])
        asked = [asked_in(text) for text in texts]
        kept = self._kept
        found = {text: vector for text in asked if (vector := kept.get(text)) is not None}
        if missing := [text for text in dict.fromkeys(asked) if text not in found]:
            made = self.encoder.encode(missing)
            made.setflags(write=False)
            found.update(zip(missing, made, strict=True))
            if len(kept) + len(missing) > CACHED_TEXTS:
                kept.clear()
            kept.update(found)  # those that were kept before as well: who asked for them together asks again for each
        vectors = [found[text] for text in asked]
        return vectors[0][np.newaxis] if len(vectors) == 1 else np.stack(vectors)


class Features(NamedTuple):
    """Embeddings (n, d) as the log would return them, and the bytes that it keeps of them. `view` is the part of a
    request that they are of, `unknown_language` the script of its letters if no labelled query has them."""

    vectors: FloatArray
    stored: bytes
    view: View = View.WHOLE
    unknown_language: str | None = None


def features_of(embeddings: FloatArray, view: View = View.WHOLE, unknown_language: str | None = None) -> Features:
    """Return the features of embeddings (n, d)."""
    halves = embeddings.astype(STORED)
    return Features(halves.astype(np.float32), halves.tobytes(), view, unknown_language)


def letter_number(letter: str) -> int:
    """Return a letter's code point, with one number for all Chinese and Japanese signs and one for all Korean ones.
    These signs are too many for labelled queries to have each."""
    return ord(letter) if letter < "\u2e80" else 0xAC00 if "\uac00" <= letter <= "\ud7ff" else 0x2E80


def known_letters(texts: Iterable[str]) -> IntArray:
    """Return the numbers of the letters that labelled queries are written in, of shape (v,)."""
    seen = Counter(number for text in texts for number in {letter_number(c) for c in text.lower() if c.isalpha()})
    return np.array(sorted(n for n, count in seen.items() if count >= QUERIES_OF_A_LETTER), dtype=np.int64)


def unknown_language(text: str, known: frozenset[int]) -> str | None:
    """Return the script of a text in a language that labelled queries lack: `greek`, or `latin` for Czech. It goes by
    the letters that fewer than two labelled queries have. None if these are few, or if no letter is beyond ASCII."""
    if not known or text.isascii():
        return None
    text = shortened(text).lower()
    strange = {c: text.count(c) for c in set(text) if c > "\x7f" and c.isalpha() and letter_number(c) not in known}
    if sum(strange.values()) <= UNKNOWN_SHARE * sum(map(str.isalpha, text)):
        return None
    return unicodedata.name(max(strange, key=strange.__getitem__), "other").partition(" ")[0].lower()


def to_bytes(embedding: FloatArray) -> bytes:
    """Return the bytes that the log keeps of one embedding (d,) or (1, d): d half-precision numbers."""
    return embedding.astype(STORED).tobytes()


def from_bytes(data: bytes) -> FloatArray:
    """Return one embedding (d,) of the log, or raise DataError if the bytes are not finite half-precision numbers."""
    if len(data) % STORED.itemsize:
        raise DataError(
            f"an embedding of the log has {len(data)} bytes, which is not a number of half-precision values"
        )
    vector = np.frombuffer(data, dtype=STORED).astype(np.float32)
    if not np.isfinite(vector).all():
        raise DataError("an embedding of the log holds values that are not finite")
    return vector


def features_hash(stored: bytes, key: bytes = b"") -> str:
    """Return the identity of one embedding as `to_bytes` returns it: 96 bits of BLAKE2b in hexadecimal.

    Args:
        key: up to 64 bytes; without it nobody can test a guess of the request.
    """
    return hashlib.blake2b(stored, digest_size=DIGEST_BYTES, key=key).hexdigest()


class Reading(NamedTuple):
    """The vector (1, d) of a request, and what it was read from: `part` is the text of its ask or task."""

    vector: FloatArray
    view: View = View.WHOLE
    part: str = ""


@dataclass(frozen=True)
class AskDetector:
    """Two logistic regressions. `weights` (d,) and an offset tell by its vector whether a text asks for something.
    `shape` (9,) and an offset tell by that and by `candidate_shapes` which part of a message is its ask."""

    weights: FloatArray
    offset: float
    shape: FloatArray
    shape_offset: float

    def log_odds(self, vectors: FloatArray) -> Float64Array:
        """Return the log odds (n,) that a text asks for something, by vectors (n, d)."""
        return np.asarray(vectors @ self.weights + self.offset, dtype=np.float64)

    def ask_odds(self, text: str, candidates: Sequence[str], vectors: FloatArray) -> Float64Array:
        """Return the log odds (c,) that each candidate is the ask of a message, by the vectors (1 + c, d) of all."""
        shapes = candidate_shapes(text, candidates, self.log_odds(vectors))
        return np.asarray(shapes @ self.shape + self.shape_offset, dtype=np.float64)


def candidate_shapes(text: str, candidates: Sequence[str], odds: Float64Array) -> Float64Array:
    """Return the shapes (c, 9) of candidates, by the log odds (1 + c,) that the text and each of them is an ask. They
    are those odds, also relative to the text's, and the lengths of both. Five flags follow: the candidate begins or
    ends the text, ends with a question mark or a colon, or has lines."""
    rows = [
        (
            own,
            own - odds[0],
            log(len(each)),
            log(len(text)),
            text.find(each) <= 1,
            text.rstrip().endswith(each),
            each.endswith(QUESTION_MARKS),
            each.endswith(COLONS),
            "\n" in each,
        )
        for each, own in zip(candidates, odds[1:].tolist(), strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(len(candidates), SHAPES)


def ask_candidates(text: str) -> list[str]:
    """Return the parts of a long text that may be its ask; none of a short text. They are its first and last block,
    line and sentence, its head up to a colon, and a few short blocks in between."""
    if len(text) < MIN_CHARS:
        return []
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 2:
        return [] if len(text) < MIN_LINE_CHARS else short_ones([*ends_of(text), until_colon(text)], MAX_ASK_CHARS)
    blocks = [block for block in BLOCK.split(text) if block and block.strip()]
    if not blocks:
        return []
    found = [blocks[0], blocks[-1]]
    if len(blocks[0].strip()) > MAX_ASK_CHARS:
        found += [lines[0], ends_of(lines[0])[0], until_colon(lines[0])]
    if len(blocks[-1].strip()) > MAX_ASK_CHARS:
        found += [lines[-1], ends_of(lines[-1])[-1]]
    between = short_ones(blocks[1:-1], MAX_ASK_CHARS)
    return short_ones([*found, *(between if len(between) <= MAX_BETWEEN else ())], MAX_ASK_CHARS)[:MAX_CANDIDATES]


def ends_of(line: str) -> list[str]:
    """Return the first and the last sentence."""
    sentences = [each for each in SENTENCE.split(line) if each.strip()]
    return [sentences[0], sentences[-1]] if sentences else [line, line]


def until_colon(line: str) -> str:
    """Return the head of a line up to its first colon; empty without one."""
    return line[: line.find(":", 0, MAX_ASK_CHARS) + 1]


def short_ones(parts: Iterable[str], most_chars: int) -> list[str]:
    """Return the parts that are not too long, stripped, each once."""
    return [part for part in dict.fromkeys(map(str.strip, parts)) if 0 < len(part) <= most_chars]


def task_candidates(system: str) -> list[str]:
    """Return the parts of a system prompt that may be each message's task: a short prompt itself, and sentences."""
    return short_ones([system, *SENTENCE.split(system)], MAX_SENTENCE_CHARS)[: MAX_SENTENCES + 1]


def read_ask(text: str, encode: Encode, detector: AskDetector | None) -> Reading:
    """Read one message."""
    candidates = [] if detector is None else ask_candidates(text)
    vectors = encode([text, *candidates])
    return Reading(vectors) if detector is None else reading_of(text, candidates, vectors, detector)


def reading_of(text: str, candidates: Sequence[str], vectors: FloatArray, detector: AskDetector) -> Reading:
    """Return the reading of a message, by the vectors (1 + c, d) of it and of its candidates. Its vector is the mean of
    the likeliest ask's and the whole message's. The whole has the larger share only if nothing in it looks like an
    ask."""
    if not candidates:
        return Reading(vectors)
    odds = detector.ask_odds(text, candidates, vectors)
    best = int(odds.argmax())
    share = sigmoid(ASK_SLOPE * (float(odds[best]) - ASK_ODDS))
    mixed = unit_rows((1 - share) * vectors[:1] + share * vectors[best + 1 : best + 2])
    return Reading(mixed, View.ASK if odds[best] >= CLEAR_ODDS else View.UNCLEAR, candidates[best])


def read_task(
    system: str, encode: Encode, detector: AskDetector | None, confidence: Callable[[FloatArray], float]
) -> Reading | None:
    """Return the reading of a system prompt's task; None if the prompt is a persona, rules, or of no clear category.

    Args:
        confidence: returns the probability of the most likely category of a vector (1, d).
    """
    if detector is None or not (candidates := task_candidates(system)):
        return None
    vectors = encode(candidates)
    odds = detector.log_odds(vectors)
    asks = odds > 0
    if not asks.any():
        return None
    share = np.array([sigmoid(each) for each in odds[asks].tolist()], dtype=np.float32)
    task = unit_rows((share @ vectors[asks])[np.newaxis])
    part = candidates[int(odds.argmax())]
    return Reading(task, View.TASK, part) if confidence(task) >= TASK_CONFIDENCE else None


def under_task(task: Reading | None, reading: Reading) -> Reading:
    """Return the reading of a message under the task of a system prompt."""
    if task is None:
        return reading
    return task._replace(vector=unit_rows(TASK_SHARE * task.vector + (1 - TASK_SHARE) * reading.vector))


def read_query(
    query: Query, encode: Encode, detector: AskDetector | None, confidence: Callable[[FloatArray], float]
) -> Reading:
    """Read a query: its ask, the earlier asks that it needs, and the task in its system prompt.

    Args:
        confidence: as of `read_task`.
    """
    reading = last = read_ask(query.text, encode, detector)
    if query.earlier:

        def vector_of(ask: str) -> FloatArray:
            return last.vector if ask is query.text else read_ask(ask, encode, detector).vector

        reading = last._replace(vector=in_context((query.text, *query.earlier), vector_of, confidence))
    if query.system:
        reading = under_task(read_task(query.system, encode, detector, confidence), reading)
    return reading


def sigmoid(odds: float) -> float:
    return float(0.5 + 0.5 * np.tanh(0.5 * odds))
