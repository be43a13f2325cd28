"""Stage 2's evidence: the quality of every expert on every category, shrunk if few answers were graded.

Shapes: n prompts, k learned categories (rows 0..k-1, row k is `general`), m experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.decision_log.read import asked_several
from coe.router.prices.cost import ANSWER, KINDS, PROMPT
from coe.router.quality import QualityMatrix
from coe.router.types import GENERAL, BoolArray, Float64Array, FloatArray, IntArray
from coe.training.published_scores import WEIGHT
from coe.training.types import OutcomeTable

PRIOR_COUNT_RANGE = (1.0, 200.0)
"""Bounds on the prior's weight in graded answers (ours). It is at least one, and too small to pull a well-measured
cell (hundreds of answers) away from its own mean."""

GUESS_PRIOR = 8.0
"""Prior weight, in answers, in a category without grades (ours; benchmarks/LOG.md). The spread among other
categories says little about one that was added because it is unlike them."""

GUESS_VARIANCE = 0.25
"""Variance of an answer's score in such a category before there are answers: at most that of a thumb."""

BACKFIT_ROUNDS = 20

ASSUMED_PROMPT, ASSUMED_OUTPUT = 100.0, 200.0
"""Tokens of a prompt and of an answer before any answer was graded: those of a short question (ours)."""

NEAR_ZERO = 0.05
"""Mean score of the best experts below which the grades show a fault, not which expert is better (ours)."""


def measure_quality(table: OutcomeTable, categories: Sequence[str], published: Sequence[float] = ()) -> QualityMatrix:
    """Return the quality matrix of an outcome table. Its mass is the table's own mix, with a prompt in every row.

    Args:
        categories: the k learned categories; prompts of other categories count only towards `general`.
        published: quality of each expert by published scores, NaN for an unknown model (training.published_scores).
    """
    prior = np.asarray(published or np.full(len(table.experts), np.nan))
    rows = row_numbers(table, categories)
    relative, difficulty = without_difficulty(table.scores, rows, len(categories))
    counts = cell_sums(table.scores, rows, len(categories))[2]
    quality, stderr = shrink_with_guesses(*cell_sums(relative, rows, len(categories)), is_ungraded(counts), prior)
    quality = np.clip(with_levels(quality, difficulty, counts, prior), 0.0, 1.0)
    mass = np.maximum(np.bincount(rows, minlength=len(categories) + 1), 1).astype(np.float32)
    prompt = mean_prompt_tokens(table, rows, len(categories))
    output = cell_means(table.output_tokens, rows, len(categories))
    if not counts.any():
        prompt, output = np.full_like(prompt, ASSUMED_PROMPT), np.full_like(output, ASSUMED_OUTPUT)
    return QualityMatrix(
        quality=quality.astype(np.float32),
        stderr=stderr.astype(np.float32),
        count=counts.astype(np.float32),
        mass=mass / mass.sum(),
        prompt_tokens=prompt,
        output_tokens=output,
        latency_ms=cell_means(table.latency_ms, rows, len(categories)),
    )


def with_levels(
    quality: Float64Array, difficulty: Float64Array, counts: NDArray[np.floating], prior: Float64Array
) -> Float64Array:
    """Convert qualities (k+1, m) relative to `difficulty` (k+1,) to absolute ones; 0 for an unknown expert.

    Without any answer, categories are as hard as published benchmarks are on average.
    """
    is_published = np.isfinite(prior)
    if not counts.any() and is_published.any():
        difficulty = np.full(len(difficulty), prior[is_published].mean())
    return np.where(counts.any(axis=0) | is_published, quality + difficulty[:, None], 0.0)


def doubt_of(evidence: QualityMatrix) -> str:
    """Return a warning that names likely faults if the best experts score next to nothing on average, else ""."""
    graded = evidence.count.max(axis=1)
    if not graded.any() or (best := float(np.average(evidence.quality.max(axis=1), weights=graded))) >= NEAR_ZERO:
        return ""
    return (
        f"Warning: even the best expert of each category scores only {best:.1%} on average, so these grades do not "
        "show which expert is better. Read some answers (journal.jsonl beside the outcome table): likely causes are a "
        "wrong chat template, a wrong model name, answers that max_tokens cuts off, or a grader that does not fit."
    )


def row_numbers(table: OutcomeTable, categories: Sequence[str]) -> IntArray:
    """Return the row of each prompt, of shape (n,); k for `general` and for categories that stage 1 has not learned."""
    number = {name: i for i, name in enumerate(categories) if name != GENERAL}
    return np.array([number.get(name, len(categories)) for name in table.categories], dtype=np.int64)


def cell_sums(scores: NDArray[np.floating], rows: IntArray, k: int) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return sum, sum of squares and count of each cell's observed scores (n, m), all (k+1, m); `rows` (n,) are
    categories."""
    observed = np.isfinite(scores)
    values = np.where(observed, scores, 0.0).astype(np.float64)
    shape = (k + 1, scores.shape[1])
    sums, squares, counts = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    np.add.at(sums, rows, values)
    np.add.at(squares, rows, values**2)
    np.add.at(counts, rows, observed.astype(np.float64))
    return sums, squares, counts


def without_difficulty(scores: FloatArray, rows: IntArray, k: int) -> tuple[Float64Array, Float64Array]:
    """Return scores (n, m) less the prompt's difficulty, and the difficulty (k+1,) of each row: its mean score over
    experts.

    A prompt that several experts answered is compared with its own level. A result that all share is most of a cell's
    noise, and does not show which is better. A prompt of one expert is compared with the mean of its row. (Two-way
    analysis of variance, experts as treatments and prompts as blocks.) Difficulties are shrunk as cells are.
    """
    own, is_shared = prompt_levels(scores, rows, k)
    difficulty = shrink(*cell_sums(own[:, None], rows, k))[0][:, 0]
    level = np.where(is_shared, own, difficulty[rows])
    return np.asarray(scores - level[:, None], dtype=np.float64), difficulty


def prompt_levels(scores: FloatArray, rows: IntArray, k: int) -> tuple[Float64Array, BoolArray]:
    """Return all measured experts' mean score on each prompt (n,), NaN without an answer, and whether several or all
    answered.

    A prompt that all answered has its mean. If some did not, because one was only probed on a few, the mean is
    corrected by how good the others are in the prompt's category. Least squares of score = level + effect of the expert
    in the category give both. The effects sum to 0 in a category, and backfitting finds them.
    """
    observed = np.isfinite(scores)
    answers = observed.sum(axis=1)
    values = np.where(observed, scores, 0.0).astype(np.float64)
    own = np.divide(values.sum(axis=1), answers, out=np.full(len(scores), np.nan), where=answers > 0)
    is_complete = answers == observed.any(axis=0).sum()
    is_shared = is_complete | (answers > 1)
    is_partial = is_shared & ~is_complete
    level, effects = own.copy(), np.zeros((k + 1, scores.shape[1]))
    for _ in range(BACKFIT_ROUNDS if is_partial.any() else 0):
        sums, _, counts = cell_sums((scores - level[:, None])[is_shared], rows[is_shared], k)
        effects = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        measured = np.maximum((counts > 0).sum(axis=1, keepdims=True), 1)
        effects -= np.where(counts > 0, effects.sum(axis=1, keepdims=True) / measured, 0.0)
        mean_effect = (observed * effects[rows]).sum(axis=1) / np.maximum(answers, 1)
        level = np.where(is_partial, own - mean_effect, own)
    return level, is_shared


def is_ungraded(counts: NDArray[np.floating]) -> BoolArray:
    """Return which categories have no grades (k+1,), by counts (k+1, m); never `general`, which others inform."""
    return np.append(counts[:-1].sum(axis=1) == 0, False)


def shrink(
    sums: Float64Array, squares: Float64Array, counts: Float64Array, prior: Float64Array | None = None
) -> tuple[Float64Array, Float64Array]:
    """Return empirical-Bayes means and standard errors of cells, all (k+1, m); 0 and 0.5 for an unknown expert.

    Normal-normal model per expert e: cell mean ~ N(theta_ce, s2/n_ce), theta_ce ~ N(mu_e, t2). The posterior mean is (n
    mean + L mu) / (n + L) with L = s2 / t2, kept within PRIOR_COUNT_RANGE (Efron & Morris 1975). Its squared standard
    error is s2 / (n + L), and (L / (n + L))^2 of the error of mu. mu is the mean of the measured cells, weighted by n /
    (n + L). So a cell that probes left after one bad answer counts as one answer. t2 is what the cells' sum of squares
    exceeds sampling by (DerSimonian & Laird 1986). With equal counts these are the plain mean, and the variance between
    cells less what sampling explains.

    A published quality, in `prior` (m,), counts in mu as one more cell of WEIGHT answers that no query belongs to. It
    only ranks experts, so their mean is set to the mean of the same experts' grades.
    """
    total, cells = counts.sum(axis=0), (counts > 0).sum(axis=0)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    within = (squares - counts * means**2).sum(axis=0) / np.maximum(total - cells, 1.0)
    within = np.maximum(within, 1e-4)
    overall = sums.sum(axis=0) / np.maximum(total, 1.0)
    spread = (counts * (means - overall) ** 2).sum(axis=0) - np.maximum(cells - 1, 0) * within
    size = total - (counts**2).sum(axis=0) / np.maximum(total, 1.0)
    between = spread / np.maximum(size, 1e-9)
    common = np.clip(within / np.maximum(between, 1e-9), *PRIOR_COUNT_RANGE)
    share = counts / (counts + common)
    published, weight = np.zeros_like(common), np.zeros_like(common)
    if prior is not None and (is_known := np.isfinite(prior)).any():
        both = is_known & (total > 0)
        level = prior[both].mean() - overall[both].mean() if both.any() else prior[is_known].mean()
        published[is_known] = prior[is_known] - level
        weight[is_known] = (WEIGHT / (WEIGHT + common))[is_known]
    shares = np.maximum(share.sum(axis=0) + weight, 1e-9)
    expected = ((share * means).sum(axis=0) + weight * published) / shares
    quality = share * means + (1.0 - share) * expected
    stderr = np.sqrt(within / (counts + common) + (1.0 - share) ** 2 * within / common / shares)
    stderr[:, total == 0] = np.where(weight > 0, np.sqrt(GUESS_VARIANCE / WEIGHT), 0.5)[total == 0]
    return quality, stderr


def shrink_with_guesses(
    sums: Float64Array,
    squares: Float64Array,
    counts: Float64Array,
    is_guess: BoolArray,
    prior: Float64Array | None = None,
) -> tuple[Float64Array, Float64Array]:
    """Return means and standard errors of cells as `shrink` does, of which some rows (k+1,) have no grades. Such rows
    neither teach nor follow how much an expert's other categories differ.

    Normal model of such a row: cell mean ~ N(theta_e, s2/n_e), theta_e ~ N(mu_e + level, s2/L), level ~ N(0, s2/L).
    Here mu_e is the expert's expected quality by its other categories, and L = GUESS_PRIOR. All answers of the category
    determine how hard it is, so an expert that was not tried there gets neither credit nor blame.
    """
    known_cells = [np.where(is_guess[:, None], 0.0, each) for each in (sums, squares, counts)]
    quality, stderr = shrink(known_cells[0], known_cells[1], known_cells[2], prior)
    is_known = counts[~is_guess].any(axis=0)  # of others it is not known how good they are elsewhere
    if prior is not None:
        is_known |= np.isfinite(prior)
    rows = np.ix_(is_guess, is_known)
    expected, n = quality[rows], counts[rows]
    unlike = np.divide(sums[rows], n, out=expected.copy(), where=n > 0) - expected
    spread = squares[rows] - n * (unlike + expected) ** 2 * (n > 0)
    within = (GUESS_VARIANCE + spread.sum(axis=1)) / (1.0 + np.maximum(n.sum(axis=1) - (n > 0).sum(axis=1), 0.0))
    share = n / (n + GUESS_PRIOR)
    shares = 1.0 + share.sum(axis=1, keepdims=True)
    level = (share * unlike).sum(axis=1, keepdims=True) / shares
    quality[rows] = expected + level + share * (unlike - level)
    error = 1.0 / (n + GUESS_PRIOR) + (1.0 - share) ** 2 / (GUESS_PRIOR * shares)
    stderr[rows] = np.sqrt(np.maximum(within, 1e-4)[:, None] * error)
    return quality, stderr


def cell_means(values: FloatArray, rows: IntArray, k: int) -> FloatArray:
    """Return the known values' mean of each cell (k+1, m); the expert's mean if the cell is empty, 0 if unknown."""
    sums, _, counts = cell_sums(values, rows, k)
    overall = np.divide(sums.sum(axis=0), counts.sum(axis=0), out=np.zeros(sums.shape[1]), where=counts.sum(axis=0) > 0)
    means = np.broadcast_to(overall, sums.shape).copy()
    np.divide(sums, counts, out=means, where=counts > 0)
    return means.astype(np.float32)


def mean_prompt_tokens(table: OutcomeTable, rows: IntArray, k: int) -> FloatArray:
    """Return the mean prompt length (k+1,) in tokens of 4 characters, as in `QueryFacts.prompt_tokens`."""
    lengths = np.array([[len(text) / 4] for text in table.texts], dtype=np.float32).reshape(-1, 1)
    return cell_means(lengths, rows, k)[:, 0]


MIN_TRAFFIC_ANSWERS = 20
"""Answers above which a cell's own lengths describe it; fewer say too little, as lengths vary widely (ours)."""

ANSWERS = "answers"
IS_PROMPT = np.array([kind in PROMPT for kind in KINDS])


class TrafficTokens(dict[tuple[str, str], Counter[str]]):
    """Tokens by kind, and answers, of every (category, expert) that the router sent requests to."""

    def add(self, record: DecisionRecord) -> None:
        """Count a decision, unless the client named the expert, several were asked, or the expert reported no usage."""
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
    """Return the matrix with the traffic's token counts.

    The kinds are shares, so that prices may change: of each cell, or of the expert if the cell has too few answers. An
    expert without any has nothing cached. Lengths are those of the traffic if it has enough answers. Other experts'
    graded lengths are scaled by the same factor as the known ones, or the serving expert would seem expensive.
    """
    shape = matrix.quality.shape
    answers, sums = np.zeros(shape), np.zeros((*shape, len(KINDS)))
    for (category, expert), counted in tokens.items():
        if expert in experts:
            cell = rows.index(category if category in rows else GENERAL), experts.index(expert)
            answers[cell] += counted[ANSWERS]
            sums[cell] += [counted[kind] for kind in KINDS]
    is_enough = answers >= MIN_TRAFFIC_ANSWERS
    prompt, output = sums[..., IS_PROMPT].sum(axis=2), sums[..., ~IS_PROMPT].sum(axis=2)
    asked = answers.sum(axis=1)
    lengths = np.where(asked >= MIN_TRAFFIC_ANSWERS, prompt.sum(axis=1) / np.maximum(asked, 1), matrix.prompt_tokens)
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
