"""A simulated judge beside the gateway: which requests it sees, and what it says of two answers whose scores are known.

Shapes: t decisions, m experts, n pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.loop_fleet import Float64Array, IntArray, Moment, draw_experts
from coe.gateway.chat.judge import ENOUGH


@dataclass(frozen=True)
class Opinions:
    """A judge of a `share` of the requests for which a second draw of the router names another expert.

    Where two answers differ it calls a tie in `tied` of them, and of the others names the better one in `right`; where
    they are alike it calls a tie in `tied_alike`, and else either.
    """

    share: float
    right: float
    tied: float = 0.2
    tied_alike: float = 0.6

    def verdicts(self, served: Float64Array, other: Float64Array, rng: np.random.Generator) -> Float64Array:
        """(n,) how far the served answers are preferred, by the scores of both: 1, 0, or 0.5 for a tie."""
        is_right = rng.random(len(served)) < np.where(served == other, 0.5, self.right)
        is_tie = rng.random(len(served)) < np.where(served == other, self.tied_alike, self.tied)
        return np.where(is_tie, 0.5, np.where(is_right, served >= other, served < other))

    def judged(
        self,
        moment: Moment,
        prompts: IntArray,
        chosen: IntArray,
        chances: Float64Array,
        compared: IntArray,
        rng: np.random.Generator,
    ) -> tuple[IntArray, IntArray, Float64Array]:
        """(n,) decisions that are sampled, the expert that answers beside the one that served, and the verdicts.

        Args:
            chances: (t, m) of each expert.
            compared: (m,) how often each was compared before, which is counted on.
        """
        drawn = draw_experts(chances, np.arange(len(chosen)), rng)
        found = []
        for at in np.flatnonzero((drawn != chosen) & (rng.random(len(chosen)) < self.share)):
            pair = [chosen[at], drawn[at]]
            if compared[pair].min() < ENOUGH:
                compared[pair] += 1
                found.append(at)
        rows = np.array(found, dtype=np.int64)
        quality, at = moment.quality[prompts[rows]], np.arange(len(rows))
        served, other = quality[at, chosen[rows]], quality[at, drawn[rows]]
        return rows, drawn[rows], self.verdicts(served, other, rng)


GPT4 = Opinions(share=0.3, right=0.85)
"""Of votes that name an answer GPT-4 and people agree in 85%, of all in 66% (Zheng et al. 2023, table 5): with ties as
above, in 68% of answers that differ and 60% of those that are alike."""

POOR = Opinions(share=0.3, right=0.692)
"""AlpacaEval's annotator by GPT-4 agrees with people in 69.2% of pairs."""
