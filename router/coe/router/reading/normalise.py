"""The request in a text, without its wrapping: fences, shouting, greetings, thanks and empty frames.

An ordinary text comes back as it was but for the space around it. So a router that was fitted on plain texts needs no
other vectors. A second application changes nothing more. The module is pure, but for words that are read once, from
polite_phrases.toml.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

VERSION = 3
"""Raised with every change of what `normalise` returns: vectors of another version do not fit."""

WHOLE_FENCE = re.compile(
    r"(?s)(?P<mark>```|~~~)[ \t]*(?i:text|txt|plain|plaintext|markdown|md)?[ \t]*\n(?P<body>.*)\n(?P=mark)"
)
SENTENCE_END = re.compile(
    r"[\s.!?:,;…。！？：，、।؟،](?:(?<=[.!?:,;…])[.!?:,;…]*[\"'”)]*(?:\s+|$)|(?<=[。！？：，、।؟،])[。！？：，、।؟،]*\s*"
    r"|(?<=\n)\s*|(?<=\s)\s*[–—-]\s+)"
)
"""Punctuation ends a part of a text where white space follows, as it does not inside of addresses and numbers. The
pattern begins with one set of characters, because others of a text are then passed over at once."""

WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0900-\u097f\u064b-\u0652]|['’-](?=[^\W\d_]))*")
NEITHER = re.compile(r"[\W_]+")
"""All that is neither letter nor digit."""

MATERIAL = re.compile(r"[\d\"“”«»「」`{}()\[\]<>=+*/\\|$#@_]")
HIDDEN_NAME = re.compile(r"[^\w\s]*[.:/]\w")
TWO_LETTERS = re.compile(r"[^\W\d_]{2,}")
QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|`[^`]*`|\([^()]*\)|\{[^{}]*\}|\[[^\[\]]*\]")
INNER_CAPITAL = re.compile(r"[A-Z](?<=[a-zA-Z]{2})")
CAPITALISED = re.compile(r"[A-Z](?<![a-zA-Z]{2})[a-zA-Z]+")
IDENTIFIER = re.compile(r"(?:[a-z]{2,}|[A-Z][a-z]+)(?:[A-Z][a-z]+)+")

HEAD_CHARS, TAIL_CHARS = 400, 200
"""Characters at the head and at the tail of a longer text that an encoder gets. Instructions are at the head or the
tail. Reading more of the material between cost time and separated the seed queries no better."""

MIN_REST_CHARS = 3
"""A shorter rest says less than the courtesy around it ("Thanks, ok")."""

MIN_TITLE_LETTERS = 4
"""A single shorter word before a colon names a field ("To:", "cc:"), a longer one may be "Task:"."""

MAX_COURTESY_CHARS = 160
"""Longer sentences are looked at no further: courtesy is short."""

SHOUTED_SHARE = 0.6
RANDOM_SHARE = 0.4
TITLE_SHARE = 0.85
"""Shares of the letters of the prose. In German, whose nouns are capitalised, title words have about half of them."""

CASED_SHARE = 0.8
"""Share of the letters that must belong to words of a script with capitals: SQL in a Japanese text is not shouted."""

MAX_TITLE_LETTERS = 40
"""Characters in which an ordinary text has a space, and no capital but its first letter. One such word is less than
`TITLE_SHARE` of `MIN_TITLE_WORDS`."""

MIN_WORDS = 2
MIN_LETTERS = 8
MIN_TITLE_WORDS = 5
"""Words below which capitals are as likely a name, an acronym or the start of a sentence as a habit (ours)."""


def normalise(text: str) -> str:
    """Return the text without a fence around all of it, without courtesy at its ends, in ordinary case, stripped.
    Numbers, code, quotations and words of the request stay as they are, but for the case of a text that is shouted, in
    title case or in random case. A text that is nothing but courtesy keeps it."""
    before, rest = None, text.strip()
    while rest != before:  # each round is shorter, so it ends: courtesy in a fence in courtesy
        before, rest = rest, without_courtesy(without_fence(rest))
    return in_usual_case(rest)


def without_fence(text: str) -> str:
    """Return the body if one fence without a programming language wraps the whole text; a fenced part stays fenced."""
    found = WHOLE_FENCE.fullmatch(text)
    if found is None or found["mark"] in found["body"]:
        return text
    return found["body"].strip()


def without_courtesy(text: str) -> str:
    """Return the text between its first and last sentence that say something; all of it if too little is left."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    parts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    first, last = 0, len(parts)
    while first < last and is_courtesy(parts[first]):
        first += 1
    while last > first + 1 and is_courtesy(parts[last - 1]) and not parts[last - 2].rstrip().endswith((":", "：")):
        last -= 1  # what a colon announces is material: "Translate into Dutch: thank you"
    rest = "".join(parts[first:last]).strip()
    if last < len(parts):
        rest = rest.rstrip(",;:–—- \n")
    return rest if len(rest) >= MIN_REST_CHARS else text


def is_courtesy(sentence: str) -> bool:
    """Return whether there are words, each asks for nothing, and there is no number, code or quotation."""
    if len(sentence) > MAX_COURTESY_CHARS:
        return False
    known, phrases, words = courtesy_words(), courtesy_phrases(), list[str]()
    for match in WORD.finditer(sentence):  # of most sentences the first word says it
        words.append(match[0])
        if words[-1].casefold().replace("’", "'") not in known and phrases.fullmatch(words[-1]) is None:
            return False
    is_field = len(words) == 1 and len(words[0]) < MIN_TITLE_LETTERS and sentence.rstrip().endswith(":")
    return bool(words) and not (is_field or MATERIAL.search(sentence) or HIDDEN_NAME.match(sentence))


@cache
def courtesy() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("polite_phrases.toml").read_text(encoding="utf-8"))


@cache
def courtesy_words() -> frozenset[str]:
    return frozenset(word for words in courtesy()["words"].values() for word in words.split())


@cache
def courtesy_phrases() -> re.Pattern[str]:
    pieces = sorted(courtesy()["phrases"].split(), key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, pieces))})++")  # possessive: no text makes it try every split


def in_usual_case(text: str) -> str:
    """Return a text in small letters if its prose is shouted, in title case or in random case."""
    if text[1:].islower() and " " in text[:MAX_TITLE_LETTERS]:
        return text
    prose = QUOTED.sub(" ", text)
    if prose.isascii() and INNER_CAPITAL.search(prose) is None:  # most texts: at most the first letters are capitals
        titled = sum(map(len, CAPITALISED.findall(prose)))
        words = TWO_LETTERS.findall(prose) if titled else []
        is_titled = len(words) >= MIN_TITLE_WORDS and titled >= TITLE_SHARE * sum(map(len, words))
        return text.lower() if is_titled else text
    words = TWO_LETTERS.findall(prose)
    cased = [word for word in words if word.isascii() or all(letter.lower() != letter.upper() for letter in word)]
    total = sum(map(len, cased))
    if len(cased) < MIN_WORDS or total < max(MIN_LETTERS, CASED_SHARE * sum(map(len, words))):
        return text
    shouted = sum(len(word) for word in cased if word.isupper())
    random = sum(len(word) for word in cased if is_random_case(word))
    titled = sum(len(word) for word in cased if word[0].isupper() and word[1:].islower())
    is_titled = len(cased) >= MIN_TITLE_WORDS and titled >= TITLE_SHARE * total
    is_odd = shouted >= SHOUTED_SHARE * total or random >= RANDOM_SHARE * total or is_titled
    return text.lower() if is_odd else text


def is_random_case(word: str) -> bool:
    """Return whether a word has inner capitals, as in tHiS, but is neither all capitals nor an identifier."""
    return not word.isupper() and any(letter.isupper() for letter in word[1:]) and not IDENTIFIER.fullmatch(word)


def shortened(text: str) -> str:
    """Return the head and the tail of a long text on lines of their own, and other texts as they are."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"


def normalised_text(text: str) -> str:
    """Return lower-case letters and digits only, by which texts count as the same query. A text without any (such as
    '???') stays as it is, stripped."""
    return NEITHER.sub("", text.lower()) or text.strip()
