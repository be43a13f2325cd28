"""The outcome table of answers: graded, compared with each other, priced. Shapes: n probes, m experts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from coe.eval.answers import Answer, Pair
from coe.eval.collect_request import CollectRequest, Show, pairs_of
from coe.eval.probe_set import GraderSpec, Probe
from coe.eval.ray_engine import spread
from coe.router.answers import AnswerKind, compares_none, declared_kind
from coe.router.prices.cost import cost
from coe.router.prices.usage import Usage
from coe.router.section import PluginConfig
from coe.training.datasets.outcome_rows import PromptRow, ScoreRow, table_of
from coe.training.datasets.outcomes import number_answers
from coe.training.types import ModelFacts, OutcomeTable

METRIC = "graded"
GRADED_IN_PART = 256


async def graded_table(
    request: CollectRequest, answers: Mapping[str, Answer], experts: Sequence[str], show: Show
) -> OutcomeTable:
    """Grade the answers of these experts to all probes, as a table (n, m); cells without an answer are NaN."""
    found = [(pair, answers.get(pair.key)) for pair in pairs_of(request, experts)]
    said = [(pair, answer.text) for pair, answer in found if answer is not None and not answer.failure]
    scores = await scores_of(request, [(pair.probe, text) for pair, text in said], show)
    score_of = {pair.cell: score for (pair, _), score in zip(said, scores, strict=True)}
    prompts = {probe.id: PromptRow(text=probe.text, category=probe.category) for probe in request.probes}
    rows = [("", score_row(pair, answer, score_of.get(pair.cell, 0.0), request)) for pair, answer in found]
    table = table_of(prompts, rows, request.out.name, experts, facts=request.facts)
    place = {probe.id: row for row, probe in enumerate(request.probes)}
    keys = await compare_answers(
        request, [(place[p.probe.id], experts.index(p.expert), text) for p, text in said], show
    )
    return replace(table, answers=number_answers(keys, table.scores.shape))


def score_row(pair: Pair, answer: Answer | None, score: float, request: CollectRequest) -> ScoreRow:
    """Return the row of one answer: its score, cost, length and latency. The score is None if there is no answer."""
    if answer is None:
        return ScoreRow(prompt_id=pair.probe.id, model=pair.expert, score=None, metric=METRIC)
    return ScoreRow(
        prompt_id=pair.probe.id,
        model=pair.expert,
        score=score,
        metric=METRIC,
        cost_usd=cost_usd(answer, request.facts.get(pair.expert, ModelFacts())),
        output_tokens=answer.output_tokens,
        latency_ms=answer.latency_ms,
    )


async def scores_of(request: CollectRequest, answers: Sequence[tuple[Probe, str]], show: Show) -> list[float]:
    """Grade answers; return the scores in their order."""
    if request.cores:
        specs = [(probe.grader.model_dump_json(), text) for probe, text in answers]
        parts = (specs[start : start + GRADED_IN_PART] for start in range(0, len(specs), GRADED_IN_PART))
        return [score for part in spread(grade_part, parts, request.cores) for score in part]
    turns, done = asyncio.Semaphore(request.options.concurrency), 0

    async def graded(probe: Probe, text: str) -> float:
        nonlocal done
        async with turns:
            # A grader may run code in a sandbox for seconds.
            score = await asyncio.to_thread(probe.grader.build(), text)
        done += 1
        show(f"grading: {done} of {len(answers)} answers")
        return score

    return await asyncio.gather(*(graded(*each) for each in answers))


def grade_part(part: Sequence[tuple[str, str]]) -> list[float]:
    """Grade answers, given as (grader as JSON, text), in a process of Ray's; raise ConfigError if a grader is wrong."""
    return [GraderSpec.model_validate_json(spec).build()(text) for spec, text in part]


async def compare_answers(
    request: CollectRequest, answers: Sequence[tuple[int, int, str]], show: Show
) -> list[tuple[int, int, str | None]]:
    """Return (row, column, key) of each answer that can be compared; the key is None if the text states no answer."""
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
    """Return the cost in USD, tokens times price; None if either is unknown."""
    if answer.prompt_tokens is None or answer.output_tokens is None or facts.price is None:
        return None
    usage = Usage(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.output_tokens, kinds=answer.kinds)
    return cost(usage, facts.price)


def kind_of_probe(probe: Probe, declared: Mapping[str, PluginConfig]) -> AnswerKind | None:
    """Return the kind of answers of the probe's grader, else the one that experts.yaml declares for its category
    (`answers`); None if answers cannot be compared."""
    own = probe.grader.answers()
    if own.key_for is not compares_none:
        return own
    return declared_kind(declared[probe.category]) if probe.category in declared else None
