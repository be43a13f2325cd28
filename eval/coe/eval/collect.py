"""The work of `coe eval collect`: runs prompts through experts, grades the answers and writes an outcome table.

An expert that fails at a prompt scores 0 there. A prompt that cannot be asked (no such model, no connection, a limit)
is not measured. If all first calls to an expert end so, the rest is not tried. Shapes: n probes, m experts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from coe.base.errors import RouterError
from coe.base.journal import Journal
from coe.eval.answers import Answer, Pair, ask_pair
from coe.eval.chat_client import CallError, ChatClient, Fault
from coe.eval.collect_request import CollectRequest, Show, pairs_of
from coe.eval.grading import graded_table
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.types import OutcomeTable

JOURNAL_FILE = "journal.jsonl"
MAX_NAMED_ERRORS = 5
TRIAL_CALLS = 8
"""Number of first calls to an expert; if none is answered, the rest is not tried (ours). An expert that fails at
half of its prompts fails eight times in a row once in 256."""


@dataclass(frozen=True)
class Collection:
    """The table, its answers, and how many of them are new. `failures` (scored 0) and `errors` (not measured) count
    by (expert, reason). `stopped` says in sentences which experts were given up."""

    table: OutcomeTable
    answers: tuple[Answer, ...]
    n_new: int
    failures: Mapping[tuple[str, str], int]
    errors: Mapping[tuple[str, str], int]
    stopped: tuple[str, ...] = ()

    @property
    def n_reused(self) -> int:
        return len(self.answers) - self.n_new


async def collect(request: CollectRequest, *, show: Show) -> Collection:
    """Ask the pairs that have no answer yet, grade all answers and write their table.

    Raises:
        ConfigError: a probe names an unknown grader or a wrong option of it.
        DataError: the journal is damaged.
        RouterError: no expert can be asked at the address, or no expert answered any probe.
    """
    for probe in request.probes:
        probe.grader.build()
    journal = Journal(request.out / JOURNAL_FILE, Answer)
    answers = {answer.key: answer for answer in journal.read()}
    pairs = pairs_of(request, request.experts)
    taken = reuse_answers(request, pairs, answers)
    journal.append(*taken)
    answers |= {answer.key: answer for answer in taken}
    wanted = [pair for pair in pairs if is_wanted(request, answers.get(pair.key))]
    asking = Asking(request, answers, journal, show)
    await asking.ask(wanted)
    known = [answers[pair.key] for pair in pairs if pair.key in answers]
    failures = Counter((answer.expert, answer.failure) for answer in known if answer.failure)
    if all(answer.failure for answer in known):
        frequent = (asking.errors + failures).most_common(MAX_NAMED_ERRORS)
        listed = "; ".join(f"{expert}: {reason}, {count} times" for (expert, reason), count in frequent)
        nobody = f"no expert answered any probe at {request.base_url}: {listed or 'none was asked'}"
        raise RouterError("; ".join(asking.stopped) or nobody)
    experts = (*request.experts, *earlier_experts(request, answers))
    table = await graded_table(request, answers, experts, show)
    write_outcomes(table.rows(np.asarray(np.isfinite(table.scores).any(axis=1))), request.out)
    return Collection(
        table=table,
        answers=tuple(known),
        n_new=asking.n_new,
        failures=failures,
        errors=asking.errors,
        stopped=tuple(asking.stopped),
    )


def reuse_answers(request: CollectRequest, pairs: Sequence[Pair], known: Mapping[str, Answer]) -> list[Answer]:
    """Return another machine's answers to pairs without an answer here, unless their keys differ. Its failures are
    left out, and so are its latencies, which are not those of this machine."""
    if request.options.again:
        return []
    given = {answer.key: answer for answer in request.given if not answer.failure}
    return [
        given[pair.key].model_copy(update={"probe_id": pair.probe.id, "expert": pair.expert, "latency_ms": None})
        for pair in pairs
        if pair.key in given and pair.key not in known
    ]


def is_wanted(request: CollectRequest, known: Answer | None) -> bool:
    """Return whether a pair must still be asked."""
    return known is None or request.options.again or (request.options.retry_failed and bool(known.failure))


@dataclass
class Asking:
    """The state while pairs are asked: answers go into `answers` and the journal."""

    request: CollectRequest
    answers: dict[str, Answer]
    journal: Journal[Answer]
    show: Show
    total: int = 0
    done: int = 0
    n_new: int = 0
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    stopped: list[str] = field(default_factory=list)

    async def ask(self, pairs: Sequence[Pair]) -> None:
        """Ask one expert after the other: engines batch best within one adapter.

        Raises:
            RouterError: no expert can be asked at this address. Answers received so far are in the journal.
        """
        self.total += len(pairs)
        async with self.request.client() as client:
            for expert, own in groupby(pairs, key=lambda pair: pair.expert):
                await self._ask_expert(client, expert, list(own))

    async def _ask_expert(self, client: ChatClient, expert: str, pairs: list[Pair]) -> None:
        """Make the first calls, and the others unless the first ones brought no answer."""
        last = await self._ask_some(client, expert, pairs[:TRIAL_CALLS])
        own = [answer for answer in self.answers.values() if answer.expert == expert]
        if len(pairs) > TRIAL_CALLS and all(answer.failure for answer in own):
            why = "it failed at all of them" if last is None else describe_error(client, expert, last)
            self.stopped.append(f"{expert}: stopped after {TRIAL_CALLS} calls: {why}")
        else:
            await self._ask_some(client, expert, pairs[TRIAL_CALLS:])

    async def _ask_some(self, client: ChatClient, expert: str, pairs: Sequence[Pair]) -> CallError | None:
        """Ask pairs, a few at once. Return the last error that prevented a call, or None. Raise RouterError if there
        is no connection."""
        waiting, errors = iter(pairs), list[CallError]()

        async def work() -> None:
            for pair in waiting:
                try:
                    answer = await ask_pair(client, pair)
                    self.journal.append(answer)
                    self.answers[answer.key] = answer
                    self.n_new += 1
                except CallError as error:
                    self.errors[expert, error.reason] += 1
                    errors.append(error)
                    if error.fault is Fault.ADDRESS:
                        raise RouterError(
                            "; ".join([*self.stopped, f"stopped: {describe_error(client, expert, error)}"])
                        ) from error
                self.done += 1
                self.show(f"asking {expert}: {self.done} of {self.total} answers")

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self.request.options.concurrency, len(pairs))):
                    tasks.create_task(work())
        except* RouterError as group:
            raise group.exceptions[0] from None
        return errors[-1] if errors else None


def describe_error(client: ChatClient, expert: str, error: CallError) -> str:
    """Describe a server's error with its address and the model."""
    said = f': "{error.quoted}"' if error.quoted else ""
    what = f"{client.shown_url} gives {error.reason} for model '{expert}'{said}"
    return f"{what}; check --base-url, COE_API_KEY, the name, and that the model answers chats"


def earlier_experts(request: CollectRequest, answers: Mapping[str, Answer]) -> tuple[str, ...]:
    """Return the experts that answered some of these probes before and are not asked now. A table without them would
    make a router that no longer knows them."""
    found = {answer.expert for answer in answers.values()} - set(request.experts)
    kept = sorted(found if request.kept is None else found & request.kept)
    return tuple(expert for expert in kept if any(pair.key in answers for pair in pairs_of(request, [expert])))
