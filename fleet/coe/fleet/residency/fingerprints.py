"""Answers of an engine to fixed texts, by which its weights are known again after a wake.

A text model gives the tokens most likely to follow each text, with their log-probabilities; an embedding model its
vectors; a reranker its scores. As far as arithmetic allows all are the same as long as the weights are. Those of the
texts' own tokens would say more, but vLLM 0.32 dies of several such requests at once with adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coe.base.errors import BackendError
from coe.fleet.calls.backend import reply_json

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
    "v1/completions": {"prompt": TEXTS, "max_tokens": 1, "logprobs": 5, "temperature": 0},
    "v1/embeddings": {"input": TEXTS},
    "v1/rerank": {"query": TEXTS[0], "documents": TEXTS},
}
"""Requests by path; an engine takes the first that its model is for."""

KEPT = 32
"""Numbers of each vector, the first ones."""

TOLERANCE, LEAST_IN_COMMON = 0.02, 0.5
"""Distance to the first answer, relative to its length, over what both have, and the share of it that both have: a near
tie may turn the last tokens (ours). The same weights give less than 0.001, whatever ran before."""

Answer = Mapping[str, float]
Fingerprint = Mapping[str, Answer]
"""By the names of models on an engine: the base, and each adapter."""


def answer_of(reply: bytes) -> dict[str, float]:
    """Numbers of a reply to one of `ASKED`, by text and token or place. Raises BackendError."""
    try:
        found: Any = reply_json(reply)
        if "choices" in found:
            rows = [choice["logprobs"]["top_logprobs"][0] for choice in found["choices"]]
        elif "data" in found:
            rows = [dict(enumerate(each["embedding"][:KEPT])) for each in found["data"]]
        else:
            rows = [{each["index"]: each["relevance_score"] for each in found["results"]}]
        return {f"{number} {key}": float(value) for number, row in enumerate(rows) for key, value in row.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackendError("an engine gave an answer that is no fingerprint") from error


def is_same(before: Answer, after: Answer) -> bool:
    """Returns False also where an answer is not a number."""
    common = [*before.keys() & after.keys()]
    if len(common) < LEAST_IN_COMMON * len(before):
        return False
    one, other = np.array([[answer[key] for key in common] for answer in (before, after)])
    return bool(np.linalg.norm(one - other) <= TOLERANCE * np.linalg.norm(one))
