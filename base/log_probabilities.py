"""The log-probabilities in a chat completion."""

from __future__ import annotations

import math
from typing import Any


def mean_logprob(completion: Any) -> float | None:
    """Mean log-probability of the tokens of the first choice; None where the engine gave none."""
    try:
        found = [float(token["logprob"]) for token in completion["choices"][0]["logprobs"]["content"]]
    except (LookupError, TypeError, ValueError):
        return None
    known = [value for value in found if math.isfinite(value)]
    return sum(known) / len(known) if known else None
