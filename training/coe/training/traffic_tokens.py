"""Lengths of prompts and answers, and their tokens by kind, as the traffic has them: what budgets are kept by.

Graded prompts are short, and none of them is cached. Shapes: k learned categories (row k is `general`), m experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.decision_log.read import asked_several
from coe.router.cost import ANSWER, KINDS, PROMPT
from coe.router.quality import QualityMatrix
from coe.router.types import GENERAL

ENOUGH = 20
"""Answers from which on a cell is described by its own; fewer say too little of lengths, which vary widely (ours)."""

ANSWERS = "answers"
IS_PROMPT = np.array([kind in PROMPT for kind in KINDS])


class TrafficTokens(dict[tuple[str, str], Counter[str]]):
    """Tokens by kind, and answers, of every (category, expert) that the router sent requests to."""

    def add(self, record: DecisionRecord) -> None:
        """Counts a decision, unless the client named the expert, several were asked, or the expert reported no
        usage."""
        decision, served, usage = record.decision, record.served_expert, record.usage
        if decision is None or served is None or record.state is not TerminalState.ANSWERED or record.is_probe:
            return
        if not decision.reason.is_routed or asked_several(record) or usage.is_estimated or not usage.prompt_tokens:
            return
        cell = self.setdefault((decision.category, served), Counter())
        cell[ANSWERS] += 1
        cell["input"] += usage.prompt_tokens - usage.of(PROMPT)
        cell["output"] += usage.completion_tokens - usage.of(ANSWER)
        cell.update(usage.kinds)


def with_traffic(
    matrix: QualityMatrix, rows: Sequence[str], experts: Sequence[str], tokens: Mapping[tuple[str, str], Counter[str]]
) -> QualityMatrix:
    """The matrix with what the traffic says of tokens.

    The kinds are shares, so that prices may change: of each cell, or of the expert where the cell has too few answers.
    An expert without any has nothing cached. Lengths are those of the traffic where there is enough; answers of other
    experts are taken to be as much longer there than graded ones as the known are, or who serves would seem dear.
    """
    shape = matrix.quality.shape
    answers, sums = np.zeros(shape), np.zeros((*shape, len(KINDS)))
    for (category, expert), counted in tokens.items():
        if expert in experts:
            cell = rows.index(category if category in rows else GENERAL), experts.index(expert)
            answers[cell] += counted[ANSWERS]
            sums[cell] += [counted[kind] for kind in KINDS]
    is_enough = answers >= ENOUGH
    prompt, output = sums[..., IS_PROMPT].sum(axis=2), sums[..., ~IS_PROMPT].sum(axis=2)
    asked = answers.sum(axis=1)
    lengths = np.where(asked >= ENOUGH, prompt.sum(axis=1) / np.maximum(asked, 1), matrix.prompt_tokens)
    known = is_enough & (matrix.output_tokens > 0)
    graded = (answers * matrix.output_tokens * known).sum(axis=1)
    longer = np.where(graded > 0, (output * known).sum(axis=1) / np.maximum(graded, 1e-9), 1.0)
    outputs = np.where(is_enough, output / np.maximum(answers, 1), matrix.output_tokens * longer[:, None])
    kinds = matrix.shares
    for column in np.flatnonzero(answers.any(axis=0)):
        for row in range(shape[0]):
            own = sums[row, column] if is_enough[row, column] else sums[:, column].sum(axis=0)
            for part in (IS_PROMPT, ~IS_PROMPT):
                if own[part].any():
                    kinds[row, column, part] = own[part] / own[part].sum()
    return replace(
        matrix,
        prompt_tokens=lengths.astype(np.float32),
        output_tokens=outputs.astype(np.float32),
        kinds=kinds if len(tokens) else matrix.kinds,
    )
