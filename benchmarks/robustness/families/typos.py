"""Typing errors in prose words: two letters swapped, one left out, or one hit beside the right key.

Numbers, code, quotations, short words, names and first letters are left alone. By default one word in ten is hit, at
least one: text as people leave it has about 1.2% wrong characters, that is one word in seventeen
(Dhakal et al. 2018, "Observations on Typing from 136 Million Keystrokes"), so this is harsher than real typing.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.robustness.prose import NUMBER_WORDS, Word, prose_words

KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
SLIPS = ("swapped", "left_out", "beside")
LAST_ALPHABET = "\u052f"
"""Latin, Greek and Cyrillic come before this character; other scripts are not typed letter by letter."""


WORD_RATE = 0.1
"""Share of the words that can be hit, at least one."""

MIN_LETTERS = 4
"""Shorter words are left alone: one letter makes another word."""


def variants(text: str, rng: np.random.Generator) -> dict[str, str]:
    """One for each kind of slip."""
    words = [word for word in prose_words(text) if can_be_hit(text[word.start : word.end], word)]
    count = max(1, round(WORD_RATE * len(words)))
    return {slip: with_slips(text, hit(words, count, rng), slip, rng) for slip in SLIPS} if words else {}


def can_be_hit(spelled: str, word: Word) -> bool:
    is_name = any(letter.isupper() for letter in (spelled[1:] if word.is_first else spelled))
    return (
        len(spelled) >= MIN_LETTERS
        and not is_name
        and spelled.isalpha()
        and spelled.casefold() not in NUMBER_WORDS
        and max(spelled) <= LAST_ALPHABET
    )


def hit(words: list[Word], count: int, rng: np.random.Generator) -> list[Word]:
    """`count` of the words, last first, so that places of the others stay valid while one is changed."""
    return [words[i] for i in sorted(rng.choice(len(words), size=count, replace=False), reverse=True)]


def with_slips(text: str, words: list[Word], slip: str, rng: np.random.Generator) -> str:
    for word in words:
        text = text[: word.start] + slipped(text[word.start : word.end], slip, rng) + text[word.end :]
    return text


def slipped(word: str, slip: str, rng: np.random.Generator) -> str:
    """The word with one slip after its first letter; the same word where that slip is impossible."""
    if slip == "swapped":
        places = [i for i in range(1, len(word) - 1) if word[i] != word[i + 1]]
        if not places:
            return word
        i = int(rng.choice(places))
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    i = int(rng.integers(1, len(word)))
    if slip == "left_out":
        return word[:i] + word[i + 1 :]
    beside = neighbours(word[i])
    return word[:i] + str(rng.choice(beside)) + word[i + 1 :] if beside else word


def neighbours(letter: str) -> list[str]:
    """Letters beside a key of a QWERTY keyboard, whose rows are shifted by half a key; empty for other letters."""
    place = {key: (row, column + row / 2) for row, keys in enumerate(KEY_ROWS) for column, key in enumerate(keys)}
    if letter not in place:
        return []
    return [key for key in place if key != letter and math.dist(place[key], place[letter]) < 1.2]
