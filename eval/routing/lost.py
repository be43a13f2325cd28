"""The test queries on which the router lost most."""

from __future__ import annotations

import numpy as np

from eval.routing.routing_records import LostQuery
from eval.routing.section_inputs import SectionInputs

SHOWN = 10
EXCERPT_CHARS = 200


def build_lost(inputs: SectionInputs, shown: int = SHOWN) -> tuple[LostQuery, ...]:
    """Queries by the best expert's score minus the chosen one's, largest first; of equals those that most experts would
    have answered, since they were easiest to get right. Queries without loss are left out."""
    rows = np.arange(len(inputs.scores))
    own, best = inputs.scores[rows, inputs.chosen], inputs.scores.argmax(axis=1)
    loss = inputs.scores[rows, best] - own
    order = np.lexsort((-inputs.scores.mean(axis=1), -loss))
    return tuple(
        LostQuery(
            prompt_id=inputs.prompt_ids[i],
            category=inputs.categories[i],
            likely_category=inputs.likely[i],
            excerpt=excerpt(inputs.texts[i]),
            chosen=inputs.experts[inputs.chosen[i]],
            chosen_score=float(own[i]),
            best=inputs.experts[best[i]],
            best_score=float(inputs.scores[i, best[i]]),
        )
        for i in order[:shown]
        if loss[i] > 0
    )


def excerpt(text: str) -> str:
    """The first 200 characters on one line; a cut is marked."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1].rstrip() + "\u2026"
