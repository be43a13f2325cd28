"""The outcome table of answers: graded, compared with each other, priced. Shapes: n probes, m experts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from coe.eval.answers import Answer
from coe.eval.collect_request import CollectRequest, Show, pairs_of
from coe.eval.probe_set import GraderSpec, Probe
from coe.eval.ray_engine import spread
from coe.router.answers import AnswerKind, Score, compares_none, declared_kind
from coe.router.cost import cost
from coe.router.section import PluginConfig
from coe.router.types import FloatArray
from coe.router.usage import Usage
from coe.training.datasets.outcomes import numbered_answers
from coe.training.types import ModelFacts, OutcomeTable, split_of

METRIC = "graded"
GRADED_IN_PART = 256


async def graded_table(
    request: CollectRequest,
    graders: Mapping[str, Score],
    answers: Mapping[str, Answer],
    experts: Sequence[str],
    show: Show,
) -> OutcomeTable:
    """All probes and these experts, graded; NaN where there is no answer."""
    shape = (len(request.probes), len(experts))
    matrices: dict[str, FloatArray] = {
        name: np.full(shape, np.nan, dtype=np.float32) for name in ("score", "cost_usd", "output_tokens", "latency_ms")
    }
    cells = [
        (row, column, answers[pair.key])
        for column, expert in enumerate(experts)
        for row, pair in enumerate(pairs_of(request, [expert]))
        if pair.key in answers
    ]
    scores = await scores_of(request, graders, [(request.probes[row], answer) for row, _, answer in cells], show)
    for (row, column, answer), score in zip(cells, scores, strict=True):
        known = {
            "score": score,
            "cost_usd": cost_usd(answer, request.facts.get(experts[column], ModelFacts())),
            "output_tokens": answer.output_tokens,
            "latency_ms": answer.latency_ms,
        }
        for name, matrix in matrices.items():
            matrix[row, column] = np.nan if known[name] is None else known[name]
    sizes = {name: request.facts[name].active_params_b for name in experts if name in request.facts}
    keys = await compared(request, [(r, c, a.text) for r, c, a in cells if not a.failure], show)
    return OutcomeTable(
        prompt_ids=tuple(probe.id for probe in request.probes),
        texts=tuple(probe.text for probe in request.probes),
        categories=tuple(probe.category for probe in request.probes),
        splits=tuple(split_of(probe.text) for probe in request.probes),
        experts=tuple(experts),
        scores=matrices["score"],
        cost_usd=matrices["cost_usd"],
        output_tokens=matrices["output_tokens"],
        latency_ms=matrices["latency_ms"],
        metric=METRIC,
        source=request.out.name,
        active_params_b={name: size for name, size in sizes.items() if size is not None},
        answers=numbered_answers(keys, (len(request.probes), len(experts))),
    )


async def scores_of(
    request: CollectRequest, graders: Mapping[str, Score], answers: Sequence[tuple[Probe, Answer]], show: Show
) -> list[float]:
    """Scores in the order of the answers; 0 where there is nothing to grade."""
    scores = [0.0] * len(answers)
    graded = [at for at, (_, answer) in enumerate(answers) if not answer.failure]
    if request.cores:
        specs = [(answers[at][0].grader.model_dump_json(), answers[at][1].text) for at in graded]
        parts = (specs[start : start + GRADED_IN_PART] for start in range(0, len(specs), GRADED_IN_PART))
        found = (score for part in spread(grade_part, parts, request.cores) for score in part)
        for at, score in zip(graded, found, strict=True):
            scores[at] = score
        return scores
    waiting, done = iter(graded), 0

    async def work() -> None:
        nonlocal done
        for at in waiting:
            probe, answer = answers[at]
            # A grader may run code in a sandbox for seconds.
            scores[at] = await asyncio.to_thread(graders[probe.id], answer.text)
            done += 1
            show(f"grading: {done} of {len(graded)} answers")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(request.options.concurrency, len(graded))):
            tasks.create_task(work())
    return scores


def grade_part(part: Sequence[tuple[str, str]]) -> list[float]:
    """Scores of answers by their graders, in a process of Ray's. Raises ConfigError, DataError."""
    return [GraderSpec.model_validate_json(spec).build()(text) for spec, text in part]


async def compared(
    request: CollectRequest, answers: Sequence[tuple[int, int, str]], show: Show
) -> list[tuple[int, int, str | None]]:
    """The keys of the answers that can be compared."""
    declared = {row: kind_of_probe(probe, request.compared_by) for row, probe in enumerate(request.probes)}
    kinds = {row: kind for row, kind in declared.items() if kind is not None}
    if any(kind.is_slow for kind in kinds.values()):
        show("comparing answers")
    keys = {row: kind.key_for(request.probes[row].text) for row, kind in kinds.items()}
    found = []
    for row, column, text in answers:
        key = keys.get(row)
        if key is not None:
            found.append((row, column, await asyncio.to_thread(key, text) if kinds[row].is_slow else key(text)))
    return found


def cost_usd(answer: Answer, facts: ModelFacts) -> float | None:
    """USD: tokens times price; None where either is unknown."""
    if answer.prompt_tokens is None or answer.output_tokens is None or facts.price is None:
        return None
    usage = Usage(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.output_tokens, kinds=answer.kinds)
    return cost(usage, facts.price)


def kind_of_probe(probe: Probe, declared: Mapping[str, PluginConfig]) -> AnswerKind | None:
    """That of its grader, else as experts.yaml declares of its category (`answers`); None where answers cannot be
    compared."""
    own = probe.grader.answers()
    if own.key_for is not compares_none:
        return own
    return declared_kind(declared[probe.category]) if probe.category in declared else None
