"""`coe eval collect`: runs prompts through experts, grades the answers and writes an outcome table.

An expert that fails at a prompt scores 0 there. What cannot be asked (no such model, no connection, a limit) is not
measured, and when the first calls to an expert bring nothing else, the rest is not tried. Shapes: n probes, m experts.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import aiohttp
import numpy as np

from eval.chat_client import CallError, ChatClient, Fault
from eval.journal import GradedAnswer, Journal, probe_hash
from eval.probe_set import Probe
from eval.types import Grader
from router.errors import RouterError
from router.types import PROBE_HEADER, FloatArray
from training.datasets.outcomes import write_outcomes
from training.split import split_of
from training.types import ModelFacts, OutcomeTable

JOURNAL_FILE = "journal.jsonl"
METRIC = "graded"
MAX_NAMED_ERRORS = 5
RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0)
FIRST_REFUSED, FIRST_FAILED = 3, 8
"""Calls to an expert after which the rest is not tried, when none could be asked, or when it failed at all of them: one
that fails at half of what it is asked does so eight times in a row once in 256 (ours)."""

OnPair = Callable[[str, str | None], None]
"""Told of each finished pair: its expert, and the error or None."""


@dataclass(frozen=True)
class CollectRequest:
    """What to collect. `base_url` is an API root such as http://127.0.0.1:8000/v1, where each expert is a model.

    `facts` gives sizes and prices; experts without any have unknown cost. `kept` are experts that may stay in the table
    with what they answered before, though they are not asked now; None keeps all of them. `timeout_s` bounds one
    answer. `is_asking_failed`: ask again where an expert failed before, instead of keeping its 0.
    """

    probes: tuple[Probe, ...]
    experts: tuple[str, ...]
    base_url: str
    out: Path
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
    kept: frozenset[str] | None = None
    concurrency: int = 4
    timeout_s: float = 120.0
    api_key: str | None = None
    is_asking_failed: bool = False


@dataclass(frozen=True)
class Pair:
    """One probe for one expert."""

    probe: Probe
    grader: Grader
    expert: str


@dataclass(frozen=True)
class Collection:
    """The table and how many pairs were taken from the journal. As (expert, reason) -> count: `failures`, scored 0, and
    `errors`, not measured. `stopped` says in sentences which experts were given up."""

    table: OutcomeTable
    n_reused: int
    failures: Mapping[tuple[str, str], int]
    errors: Mapping[tuple[str, str], int]
    stopped: tuple[str, ...] = ()


def tokens(usage: Mapping[str, object], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else None


async def graded(client: ChatClient, pair: Pair) -> GradedAnswer:
    """Asks and grades one pair; an expert that failed for good scores 0. Raises CallError on any other error."""
    started = time.perf_counter()
    try:
        text, usage = await client.ask(pair.expert, pair.probe)
    except CallError as error:
        if error.fault is not Fault.EXPERT or error.is_retryable:
            raise
        return failed_answer(pair, error, started)
    latency_ms = 1000 * (time.perf_counter() - started)
    return GradedAnswer(
        probe_id=pair.probe.id,
        probe_hash=probe_hash(pair.probe),
        expert=pair.expert,
        score=await asyncio.to_thread(pair.grader, text),  # a grader may run code in a sandbox for seconds
        prompt_tokens=tokens(usage, "prompt_tokens"),
        output_tokens=tokens(usage, "completion_tokens"),
        latency_ms=latency_ms,
    )


def failed_answer(pair: Pair, error: CallError, started: float) -> GradedAnswer:
    """A failure as it counts: 0, with its latency. Nobody bills for an error; what a lost answer cost is not known."""
    billed = 0 if error.is_answered else None
    return GradedAnswer(
        probe_id=pair.probe.id,
        probe_hash=probe_hash(pair.probe),
        expert=pair.expert,
        score=0.0,
        prompt_tokens=billed,
        output_tokens=billed,
        latency_ms=1000 * (time.perf_counter() - started),
        failure=error.reason,
    )


async def graded_in_time(client: ChatClient, pair: Pair) -> GradedAnswer:
    """As `graded`, waiting for an expert that is away for a moment (429, 503, no connection). Raises CallError."""
    for wait_s in (*RETRY_WAITS_S, None):
        started = time.perf_counter()
        try:
            return await graded(client, pair)
        except CallError as error:
            if wait_s is None and error.fault is Fault.EXPERT:
                return failed_answer(pair, error, started)
            if wait_s is None or not error.is_retryable:
                raise
            await asyncio.sleep(error.retry_after_s if error.retry_after_s is not None else wait_s)
    raise AssertionError("the last try returns or raises")


async def collect(request: CollectRequest, *, on_pair: OnPair) -> Collection:
    """Collects what the journal lacks and writes the table of all.

    Raises:
        ConfigError: a probe names a wrong grader.
        DataError: a damaged journal.
        RouterError: nobody can be asked there, or no expert answered any probe.
    """
    journal = Journal(request.out / JOURNAL_FILE)
    answers = {(a.probe_hash, a.expert): a for a in journal.read()}
    graders = [(probe, probe.grader.build()) for probe in request.probes]
    pairs = [Pair(probe, grader, expert) for expert in request.experts for probe, grader in graders]
    missing = [pair for pair in pairs if is_wanted(request, answers.get((probe_hash(pair.probe), pair.expert)))]
    for pair in set(pairs) - set(missing):
        on_pair(pair.expert, None)
    asking = Asking(request, answers, journal, on_pair)
    await asking.ask(missing)
    asked = {(probe_hash(probe), expert) for probe in request.probes for expert in request.experts}
    failures = Counter((a.expert, a.failure) for key, a in answers.items() if a.failure and key in asked)
    if not any(not answers[key].failure for key in asked & answers.keys()):
        listed = listed_errors(asking.errors + failures)
        reasons = "; ".join(asking.stopped) or f"no expert answered any probe at {request.base_url}: {listed}"
        raise RouterError(reasons)
    table = outcome_table(request, answers, (*request.experts, *earlier_experts(request, answers)))
    write_outcomes(table.rows(np.asarray(np.isfinite(table.scores).any(axis=1))), request.out)
    return Collection(table, len(pairs) - len(missing), failures, asking.errors, tuple(asking.stopped))


def is_wanted(request: CollectRequest, known: GradedAnswer | None) -> bool:
    """Whether a pair is still to be asked."""
    return known is None or (request.is_asking_failed and bool(known.failure))


@dataclass
class Asking:
    """Pairs being asked: what was graded goes into `answers` and the journal."""

    request: CollectRequest
    answers: dict[tuple[str, str], GradedAnswer]
    journal: Journal
    on_pair: OnPair
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    stopped: list[str] = field(default_factory=list)
    has_answer: bool = False

    async def ask(self, pairs: Sequence[Pair]) -> None:
        """One expert after the other: engines batch best within one adapter.

        Raises:
            RouterError: nobody can be asked at this address. What was graded is in the journal.
        """
        key = self.request.api_key
        headers = {PROBE_HEADER: "1"} | ({"authorization": f"Bearer {key}"} if key else {})
        timeout = aiohttp.ClientTimeout(total=self.request.timeout_s)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            client = ChatClient(session, self.request.base_url, key)
            for expert, own in groupby(pairs, key=lambda pair: pair.expert):
                await self._ask_expert(client, expert, list(own))

    async def _ask_expert(self, client: ChatClient, expert: str, pairs: list[Pair]) -> None:
        """The first few calls, and all others unless those came to nothing."""
        last: CallError | None = None
        done = 0
        for end in (FIRST_REFUSED, FIRST_FAILED, len(pairs)):
            last = await self._ask_some(client, pairs[done:end]) or last
            done = min(end, len(pairs))
            if last is not None and last.fault is Fault.ADDRESS:
                raise RouterError("; ".join([*self.stopped, f"stopped: {told(client, expert, last)}"]))
            if done == len(pairs) or not self._is_hopeless(expert):
                continue
            if last is not None and last.fault is Fault.KEY and not self.has_answer:
                raise RouterError(
                    "; ".join([*self.stopped, f"stopped after {done} calls: {told(client, expert, last)}"])
                )
            why = "it failed at all of them" if last is None else told(client, expert, last)
            self.stopped.append(f"{expert}: stopped after {done} calls: {why}")
            return

    def _is_hopeless(self, expert: str) -> bool:
        """Whether so many calls brought no answer, and none did, that the expert is given up."""
        own = [answer for (_, name), answer in self.answers.items() if name == expert]
        n_refused = sum(count for (name, _), count in self.errors.items() if name == expert)
        is_silent = all(answer.failure for answer in own)
        return is_silent and (n_refused >= FIRST_REFUSED or n_refused + len(own) >= FIRST_FAILED)

    async def _ask_some(self, client: ChatClient, pairs: Sequence[Pair]) -> CallError | None:
        """Asks pairs, a few at once. Returns what kept one from being asked: that there is no connection, which ends
        it, or else the last error."""
        waiting, errors = iter(pairs), list[CallError]()

        async def work() -> None:
            for pair in waiting:
                try:
                    answer = await graded_in_time(client, pair)
                except CallError as error:
                    errors.append(error)
                    self.errors[pair.expert, error.reason] += 1
                    self.on_pair(pair.expert, error.reason)
                else:
                    self.has_answer |= not answer.failure
                    self.journal.append(answer)
                    self.answers[answer.probe_hash, answer.expert] = answer
                    self.on_pair(pair.expert, answer.failure or None)
                if any(error.fault is Fault.ADDRESS for error in errors):
                    return

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self.request.concurrency, len(pairs))):
                tasks.create_task(work())
        return next((error for error in errors if error.fault is Fault.ADDRESS), errors[-1] if errors else None)


def told(client: ChatClient, expert: str, error: CallError) -> str:
    """What a server said, where, and of which model."""
    said = f': "{error.quoted}"' if error.quoted else ""
    return (
        f"{client.shown_url} gives {error.reason} for model '{expert}'{said}; check the address, the key and the name"
    )


def listed_errors(errors: Mapping[tuple[str, str], int]) -> str:
    """The most frequent errors, for a message."""
    frequent = Counter(errors).most_common(MAX_NAMED_ERRORS)
    return "; ".join(f"{expert}: {reason}, {count} times" for (expert, reason), count in frequent) or "none was asked"


def earlier_experts(request: CollectRequest, answers: Mapping[tuple[str, str], GradedAnswer]) -> tuple[str, ...]:
    """Experts that answered some of these probes before and are not asked now: a table without them would make a router
    that knows them no more."""
    wanted = {probe_hash(probe) for probe in request.probes}
    found = {expert for asked, expert in answers if asked in wanted} - set(request.experts)
    return tuple(sorted(found if request.kept is None else found & request.kept))


def outcome_table(
    request: CollectRequest, answers: Mapping[tuple[str, str], GradedAnswer], experts: tuple[str, ...]
) -> OutcomeTable:
    """All probes, and these experts; NaN where there is no graded answer."""
    shape = (len(request.probes), len(experts))
    matrices: dict[str, FloatArray] = {
        name: np.full(shape, np.nan, dtype=np.float32) for name in ("score", "cost_usd", "output_tokens", "latency_ms")
    }
    for row, probe in enumerate(request.probes):
        for column, expert in enumerate(experts):
            answer = answers.get((probe_hash(probe), expert))
            if answer is None:
                continue
            known = answer.model_dump() | {"cost_usd": cost_usd(answer, request.facts.get(expert, ModelFacts()))}
            for name, matrix in matrices.items():
                matrix[row, column] = np.nan if known[name] is None else known[name]
    sizes = {name: request.facts[name].active_params_b for name in experts if name in request.facts}
    return OutcomeTable(
        prompt_ids=tuple(probe.id for probe in request.probes),
        texts=tuple(probe.text for probe in request.probes),
        categories=tuple(probe.category for probe in request.probes),
        splits=tuple(split_of(probe.text) for probe in request.probes),
        experts=experts,
        scores=matrices["score"],
        cost_usd=matrices["cost_usd"],
        output_tokens=matrices["output_tokens"],
        latency_ms=matrices["latency_ms"],
        metric=METRIC,
        source=request.out.name,
        active_params_b={name: size for name, size in sizes.items() if size is not None},
    )


def cost_usd(answer: GradedAnswer, facts: ModelFacts) -> float | None:
    """Tokens times price; None where either is unknown."""
    amounts = (answer.prompt_tokens, facts.price_in_per_m_usd, answer.output_tokens, facts.price_out_per_m_usd)
    if None in amounts:
        return None
    tokens_in, price_in, tokens_out, price_out = (float(amount or 0) for amount in amounts)
    return (tokens_in * price_in + tokens_out * price_out) / 1e6
