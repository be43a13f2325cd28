"""Asking and grading spread over Ray. Every part is one call of a function of this file in a process of Ray's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from base.ray_engine import spread
from eval.answers import Answer, Pair, asked_in_time
from eval.chat_client import CallError, Place
from eval.probe_set import GraderSpec

ASKED_IN_PART, GRADED_IN_PART = 32, 256


Asked = Answer | CallError


@dataclass(frozen=True)
class Spread:
    """The cores of Ray."""

    cores: int

    def asked(self, place: Place, pairs: Sequence[Pair]) -> Iterator[list[Asked]]:
        """An answer to each pair, or the error without one, some pairs at a time, in their order."""
        parts = ((place, pairs[at : at + ASKED_IN_PART]) for at in range(0, len(pairs), ASKED_IN_PART))
        return spread(ask_part, parts, self.cores)

    def graded(self, answers: Sequence[tuple[GraderSpec, str]]) -> Iterator[list[float]]:
        """Scores in the order of the answers."""
        parts = (
            [(spec.model_dump_json(), text) for spec, text in answers[at : at + GRADED_IN_PART]]
            for at in range(0, len(answers), GRADED_IN_PART)
        )
        return spread(grade_part, parts, self.cores)


def ask_part(part: tuple[Place, Sequence[Pair]]) -> list[Asked]:
    return asyncio.run(ask_pairs(*part))


async def ask_pairs(place: Place, pairs: Sequence[Pair]) -> list[Asked]:
    """Asks each pair, a few at once."""
    turns = asyncio.Semaphore(place.concurrency)
    async with place.client() as client:

        async def ask(pair: Pair) -> Asked:
            async with turns:
                try:
                    return await asked_in_time(client, pair)
                except CallError as error:
                    return error

        return list(await asyncio.gather(*(ask(pair) for pair in pairs)))


def grade_part(part: Sequence[tuple[str, str]]) -> list[float]:
    """Scores (n). Raises ConfigError, DataError: a grader cannot be built."""
    return [GraderSpec.model_validate_json(spec).build()(text) for spec, text in part]
