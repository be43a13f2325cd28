"""The form of a text, not its subject: cue words of sixteen languages, code, numbers, marks, length, script.

A sentence embedding knows the topic best ("a poem about SQL" lies near SQL); these features know the task. They are
meant to be used with an embedding, in `concat`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import log1p
from typing import Any

import numpy as np
from pydantic import Field

from router.encoders._cues import CUES
from router.types import FloatArray, Record
from router.weights import fingerprint

MARKS: dict[str, str] = {
    "code_fence": r"```|\bdef \w+\(|=>|\{\s*$|;\s*$|</?\w+>|\w+\(\)|#include|\bimport \w+",
    "sql_words": r"(?i)\bselect\b.+\bfrom\b|\bgroup by\b|\border by\b|\bjoin\b|\bwhere\b.+[=<>]",
    "shell_marks": r"(?m)^\s*\$ |\s-{1,2}[a-z]+\b|\.(log|txt|sh|csv|tar|gz|zip)\b|~/|/(var|etc|usr|home|tmp)\b",
    "expression": r"\d\s*[-+*/x×÷^%]\s*\d|=\s*\?|√|\d+%",
    "unit": r"(?i)\d\s*(km|cm|mm|m|mi|ft|in|kg|g|lbs?|oz|l|ml|gal|mph|°[cf]|c|f|gb|mb|kb|usd|eur)\b",
    "number_base": r"(?i)0x[0-9a-f]+|\b[01]{4,}\b",
    "clock_or_date": r"\b\d{1,2}:\d{2}\b|\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b|(?i:\b\d{1,2}\s?[ap]m\b)",
    "money": r"[$€£¥₹]\s?\d|\d\s?[$€£¥₹]",
    "json_marks": r"(?i)\bjson\b|[{\[]\s*\"|\":",
    "address": r"\S+@\S+|https?://|\+\d[\d -]{6,}",
    "quoted": r"[\"“«「『].{8,}[\"”»」』]|:\s*\n|:\s*['‘]",
    "label_list": r"(?i)\b\w+\s*/\s*\w+\s*/\s*\w+|\b\w+, \w+,? (or|oder|ou|o|или) \w+",
    "question": r"[?？؟]\s*$",
    "several_lines": r"\n.*\n",
    "list_lines": r"(?m)^\s*([-*•]|\d+[.)])\s",
}
SCRIPTS: dict[str, str] = {
    "cjk": r"[\u4e00-\u9fff]",
    "kana": r"[\u3040-\u30ff]",
    "hangul": r"[\uac00-\ud7af]",
    "cyrillic": r"[\u0400-\u04ff]",
    "arabic": r"[\u0600-\u06ff]",
    "devanagari": r"[\u0900-\u097f]",
    "latin_accents": r"[\u00c0-\u024f]",
}
NEEDED: dict[str, tuple[str, ...]] = {
    "code_fence": ("```", "def ", "=>", "{", ";", "<", "()", "#include", "import "),
    "sql_words": ("select", "group by", "order by", "join", "where"),
    "shell_marks": ("$ ", "-", ".log", ".txt", ".sh", ".csv", ".tar", ".gz", ".zip", "/"),
    "expression": ("-", "+", "*", "/", "x", "^", "%", "="),
    "unit": tuple("0123456789"),
    "number_base": ("0x", "00", "01", "10", "11"),
    "clock_or_date": (":", "-", "/", ".", "am", "pm"),
    "money": ("$",),
    "json_marks": ("json", '"'),
    "address": ("@", "://", "+"),
    "quoted": ('"', ":"),
    "label_list": ("/", ", "),
    "question": ("?",),
    "several_lines": ("\n",),
    "list_lines": ("-", "*", ".", ")"),
}
"""Of a text in ASCII that has a mark, its small letters hold one of these. Looking for them first takes a third of the
time of looking for the marks of every text."""

OPENING_CHARS = 40
HEAD_CHARS = 240
"""Instructions are at the head or the tail of a text; a cue in the middle belongs to the material."""


class Options(Record):
    max_chars: int = Field(default=4000, ge=64, description="characters after these are not looked at")


END = ""
"""The key of a trie's node under which are the tasks whose stem ends there."""

UNSPACED = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")


@cache
def cue_tries() -> tuple[dict[str, Any], dict[str, Any]]:
    """Stems as tries by character: those that begin a word, and those of scripts without spaces, matched anywhere."""
    at_word_start: dict[str, Any] = {}
    anywhere: dict[str, Any] = {}
    for number, words in enumerate(CUES.values()):
        for stem in words.lower().split():
            node = anywhere if UNSPACED.search(stem) else at_word_start
            for character in stem.replace("_", " ").strip():
                node = node.setdefault(character, {})
            node.setdefault(END, []).append(number)
    return at_word_start, anywhere


@cache
def stem_start() -> re.Pattern[str]:
    """A character where a stem may begin."""
    at_word_start, anywhere = (f"[{re.escape(''.join(trie))}]" for trie in cue_tries())
    return re.compile(rf"(?<!\w){at_word_start}|{anywhere}")


def find_cues(text: str) -> Iterator[tuple[int, int, int]]:
    """Task, start and end of every stem in a text of small letters, by start and then end."""
    at_word_start, anywhere = cue_tries()
    length = len(text)
    for match in stem_start().finditer(text):
        start = match.start()
        node = anywhere if text[start] in anywhere else at_word_start
        for end in range(start, length):
            if text[end] not in node:
                break
            node = node[text[end]]
            if END in node:
                yield from ((task, start, end + 1) for task in node[END])


def count_cues(text: str, opening: int) -> tuple[list[int], list[int]]:
    """Counts the stems of each task in a text (the longest where several begin, none inside of another), and tells of
    each task if a stem lies within the text's first characters."""
    counts, opens = [0] * len(CUES), [0] * len(CUES)
    last = [(-1, 0)] * len(CUES)
    for task, start, end in find_cues(text.replace("İ", "i").lower()):  # the only letter that grows when made small
        begun, free = last[task]
        if start == begun or start >= free:
            counts[task] += start != begun
            last[task] = start, end
        opens[task] |= end <= opening
    return counts, opens


@cache
def mark_patterns() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.DOTALL) for pattern in (*MARKS.values(), *SCRIPTS.values()))


@cache
def ascii_marks() -> tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]:
    """Marks of a text in ASCII: what they need, and their patterns."""
    return tuple((NEEDED[name], pattern) for name, pattern in zip(MARKS, mark_patterns(), strict=False))


def marks_in(text: str) -> list[bool]:
    """Tells of each mark and script if the text has it."""
    if not text.isascii():
        return [pattern.search(text) is not None for pattern in mark_patterns()]
    has = text.lower().__contains__
    found = [any(map(has, needed)) and pattern.search(text) is not None for needed, pattern in ascii_marks()]
    return found + [False] * len(SCRIPTS)


@dataclass(frozen=True)
class SurfaceEncoder:
    """Features of a text, then the row is scaled to unit length."""

    max_chars: int
    is_inline: bool = True

    @property
    def dim(self) -> int:
        return 2 * len(CUES) + len(MARKS) + len(SCRIPTS) + 3

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("surface", self.max_chars, sorted(CUES.items()), MARKS, SCRIPTS, HEAD_CHARS, OPENING_CHARS)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        return np.array([self.encode_one(text) for text in texts], dtype=np.float32).reshape(len(texts), self.dim)

    def encode_one(self, text: str) -> FloatArray:
        """(d,) unit vector; zeros for an empty text."""
        text = text[: self.max_chars]
        if not text.strip():
            return np.zeros(self.dim, dtype=np.float32)
        ends = text if len(text) <= 2 * HEAD_CHARS else f"{text[:HEAD_CHARS]}\n{text[-HEAD_CHARS:]}"
        counts, opening = count_cues(ends, OPENING_CHARS)
        cues = [min(count, 3) / 3 for count in counts]
        marks = [0.7 * is_there for is_there in marks_in(text)]
        digits = sum(map(text.count, "0123456789") if text.isascii() else map(str.isdigit, text)) / len(text)
        length = log1p(len(text)) / 8
        words = log1p(len(text.split())) / 6
        vector = np.array([*cues, *opening, *marks, 2 * digits, length, words], dtype=np.float32)
        return vector / np.float32(np.linalg.norm(vector))


def build(options: Options) -> SurfaceEncoder:
    return SurfaceEncoder(options.max_chars)


EXAMPLES = (Options(), Options(max_chars=500))
