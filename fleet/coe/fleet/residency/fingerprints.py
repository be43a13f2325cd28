"""Answers of an engine to fixed texts, by which its weights are known again after a wake.

A text model gives the largest log-probabilities of the token that follows each text, in falling order, so that no near
tie turns them; an embedding model its vectors; a reranker its scores. All are the same as long as the weights are, as
far as arithmetic allows. Log-probabilities of the texts' own tokens would say more, but 0.32 dies of several such
requests at once with adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coe.base.errors import BackendError
from coe.fleet.backend import reply_json

TEXTS = (
    "The capital of France is",
    "The capital of France is Paris. Water boils at a temperature of 100 degrees",
    "The capital of France is Paris. Water boils at a temperature of 100 degrees Celsius. Once upon a time there was a",
    "def add(a, b):\n    return",
    "36 + 47 = 83 and 9 * 12 =",
    "Translate to German: good morning, ladies and",
)
"""Each begins alike or not, so that what is cached of one is read for the next."""

TOP = 5

ASKED: Mapping[str, Mapping[str, object]] = {
    "v1/completions": {"prompt": TEXTS, "max_tokens": 1, "logprobs": TOP, "temperature": 0},
    "v1/embeddings": {"input": TEXTS},
    "v1/rerank": {"query": TEXTS[0], "documents": TEXTS},
}
"""Requests by path; an engine takes the first that its model is for."""

TOLERANCE = 0.02
"""Distance to the first answers, relative to their length (ours). The same weights give less than 0.001, whatever ran
before; noise gives 1 or so."""

Fingerprint = Mapping[str, Sequence[float]]
"""By the names of models on an engine: the base, and each adapter."""


def numbers_of(answer: bytes) -> tuple[float, ...]:
    """Of an answer to one of `ASKED`, in the order of the texts. Raises BackendError."""
    try:
        found: Any = reply_json(answer)
        if "choices" in found:
            tops = [each["logprobs"]["top_logprobs"][0].values() for each in found["choices"]]
            return tuple(float(value) for top in tops for value in sorted(top, reverse=True)[:TOP])
        if "data" in found:
            return tuple(float(value) for each in found["data"] for value in each["embedding"])
        scores = {each["index"]: each["relevance_score"] for each in found["results"]}
        return tuple(float(scores[number]) for number in range(len(TEXTS)))
    except (ValueError, LookupError, TypeError) as error:
        raise BackendError("an engine gave an answer that is no fingerprint") from error


def is_same(before: Sequence[float], after: Sequence[float]) -> bool:
    """Returns False also where an answer is not a number."""
    if len(before) != len(after):
        return False
    one, other = np.array(before), np.array(after)
    return bool(np.linalg.norm(one - other) <= TOLERANCE * np.linalg.norm(one))
