"""The words that decided a request's category: without one of them the category is less probable. Pure."""

from __future__ import annotations

import re

from coe.router.pipeline import Router
from coe.router.reading.normalise import shortened
from coe.router.types import Query, Record

WORD = re.compile(r"\w+(?:['’-]\w+)*")
MAX_WORDS = 64
"""Words that are left out, one at a time; each takes an encoding."""

SHOWN = 3


class ReadFrom(Record):
    """The part of a request that was read, and its deciding words with what each adds to the category's probability."""

    text: str
    words: dict[str, float]


def read_from(router: Router, query: Query) -> ReadFrom:
    """Return the text that a query's category was read from, and its deciding words. Words of scripts without spaces
    are their runs of letters.

    Raises:
        BackendError: a remote encoder does not answer.
    """
    reading = router.read(query)
    text = reading.part or shortened(query.text.strip())
    words = list(dict.fromkeys(WORD.findall(text)))[:MAX_WORDS]
    without = [" ".join(re.sub(rf"\b{re.escape(word)}\b", " ", text).split()) for word in words]
    views = [reading.view] * (1 + len(words))
    probs = router.predict_categories(router.encoder.encode([text, *without]), views).probs
    likely = int(probs[0].argmax())
    falls = {word: float(probs[0, likely] - rest[likely]) for word, rest in zip(words, probs[1:], strict=True)}
    decided = sorted((word for word, fall in falls.items() if fall > 0), key=lambda word: -falls[word])
    return ReadFrom(text=text, words={word: round(falls[word], 3) for word in decided[:SHOWN]})
