"""What one more expert costs the collections that it was not made for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.retrieval.retrieval_records import AddedExpert
from eval.retrieval.situation import Situation
from retrieval.training.labels import Labelled
from retrieval.training.routing_tuning import routed_scores
from retrieval.types import BASE


def cost_of_adding(tests: Sequence[Labelled], situation: Situation) -> tuple[AddedExpert, ...]:
    """For every expert the mean change of coe's nDCG@10 over the other collections, when it is added last."""
    if situation.library is None or len(tests) < 2:
        return ()
    everyone = {test.collection: routed_scores(situation.library, test, situation.experts).mean() for test in tests}
    found = []
    for expert in situation.experts:
        if expert == BASE:
            continue
        fewer = [name for name in situation.experts if name != expert]
        changes = {
            test.collection: float(everyone[test.collection] - routed_scores(situation.library, test, fewer).mean())
            for test in tests
            if test.collection != expert
        }
        worst = min(changes, key=lambda name: changes[name])
        found.append(
            AddedExpert(
                expert=expert,
                mean_change=float(np.mean(list(changes.values()))),
                worst_change=changes[worst],
                worst_collection=worst,
            )
        )
    return tuple(found)
