"""`coe eval collect`: runs prompts through experts, grades the answers and writes an outcome table.

An expert that fails at a prompt scores 0 there. A prompt that cannot be asked (no such model, no connection, a limit)
is not measured, and when the first calls to an expert all end so, the rest is not tried. Shapes: n probes, m experts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import aiohttp
import numpy as np

from base.errors import RouterError
from eval.answer_keys import asks_by, keys_of, kind_of_probe
from eval.answers import Answer, Journal, Pair, answer_key, asked_in_time
from eval.chat_client import CallError, ChatClient, Fault
from eval.probe_set import Probe
from eval.ray_collect import Asked, Place, Refusal, Spread
from eval.types import Grader
from router.section import PluginConfig
from router.strategies.types import Question
from router.types import PROBE_HEADER, FloatArray
from training.datasets.outcomes import numbered_answers, write_outcomes
from training.split import split_of
from training.types import ModelFacts, OutcomeTable

JOURNAL_FILE = "journal.jsonl"
METRIC = "graded"
MAX_NAMED_ERRORS = 5
FIRST_REFUSED, FIRST_FAILED = 3, 8
"""Calls to an expert after which the rest is not tried, when none could be asked, or when it failed at all of them: one
that fails at half of what it is asked does so eight times in a row once in 256 (ours)."""

TIMED = 3
"""Answers of an expert that this machine times itself; the latency of a given answer follows from its tokens."""

Show = Callable[[str], None]
"""Called with a line that says what is being done now."""


@dataclass(frozen=True)
class CollectRequest:
    """The experts, the probes and where to ask. `base_url` is an API root such as http://127.0.0.1:8000/v1, where each
    expert is a model.

    `facts` gives sizes and prices; experts without any have unknown cost. `fingerprints` say what decides an expert's
    answers; the name does where there is none. `given` are answers of another machine, which are not asked again.
    `free` are experts whose answers cost nothing: they are asked each time, so no key has to cover their code.
    `kept` are experts that may stay in the table with what they answered before, though they are not asked now; None
    keeps all of them. `compared_by` is the kind of answers by category, for probes whose grader tells none; `embed` is
    the router's encoder, for kinds that need it. `timeout_s` bounds one answer. `is_asking_failed`: ask again where an
    expert failed before, instead of keeping its 0. `is_asking_all`: ask everything again. `wants_logprobs`:
    of what is asked now, for the gate of `escalate`; builtin experts have none. `spread`: Ray asks and grades.
    """

    probes: tuple[Probe, ...]
    experts: tuple[str, ...]
    base_url: str
    out: Path
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    given: tuple[Answer, ...] = ()
    free: frozenset[str] = frozenset()
    kept: frozenset[str] | None = None
    compared_by: Mapping[str, PluginConfig] = field(default_factory=dict)
    embed: Callable[[Sequence[str]], FloatArray] | None = None
    concurrency: int = 4
    timeout_s: float = 120.0
    api_key: str | None = None
    is_asking_failed: bool = False
    is_asking_all: bool = False
    wants_logprobs: bool = False
    spread: Spread | None = None

    @property
    def place(self) -> Place:
        """The API that experts are asked by."""
        return Place(self.base_url, self.api_key, self.timeout_s, self.concurrency)

    def key(self, expert: str, probe: Probe) -> str:
        """Key of the expert's answer to the probe."""
        return answer_key(probe, self.fingerprints.get(expert, expert))


@dataclass(frozen=True)
class Collection:
    """The table, its answers, and how many of them were there already. As (expert, reason) -> count: `failures`, scored
    0, and `errors`, not measured. By expert: `abstentions`, and `n_given`, answers of another machine. `stopped` says
    in sentences which experts were given up."""

    table: OutcomeTable
    answers: tuple[Answer, ...]
    n_reused: int
    n_given: Counter[str]
    failures: Mapping[tuple[str, str], int]
    errors: Mapping[tuple[str, str], int]
    abstentions: Counter[str]
    stopped: tuple[str, ...] = ()


async def collect(request: CollectRequest, *, show: Show) -> Collection:
    """Asks what is not known yet, grades everything and writes the table of it.

    Raises:
        ConfigError: a probe names a wrong grader.
        DataError: a damaged journal.
        RouterError: no expert can be asked there, or no expert answered any probe.
    """
    graders = {probe.id: probe.grader.build() for probe in request.probes}
    journal = Journal(request.out / JOURNAL_FILE)
    answers = {answer.key: answer for answer in journal.read()}
    pairs = pairs_of(request, request.experts)
    taken = taken_answers(request, pairs, answers)
    journal.append(*taken)
    answers |= {answer.key: answer for answer in taken}
    wanted = [pair for pair in pairs if pair.expert in request.free or is_wanted(request, answers.get(pair.key))]
    asking = Asking(request, answers, journal, show)
    await asking.ask(wanted + untimed(pairs, wanted, answers))
    known = [answers[pair.key] for pair in pairs if pair.key in answers]
    failures = Counter((answer.expert, answer.failure) for answer in known if answer.failure)
    if all(answer.failure for answer in known):
        listed = listed_errors(asking.errors + failures)
        reasons = "; ".join(asking.stopped) or f"no expert answered any probe at {request.base_url}: {listed}"
        raise RouterError(reasons)
    experts = (*request.experts, *earlier_experts(request, answers))
    table = await graded_table(request, graders, answers, experts, show)
    write_outcomes(table.rows(np.asarray(np.isfinite(table.scores).any(axis=1))), request.out)
    return Collection(
        table=table,
        answers=tuple(known),
        n_reused=len(pairs) - len(wanted) - len(taken),
        n_given=Counter(answer.expert for answer in known if answer.latency_ms is None),
        failures=failures,
        errors=asking.errors,
        abstentions=Counter(answer.expert for answer in known if answer.abstains),
        stopped=tuple(asking.stopped),
    )


def pairs_of(request: CollectRequest, experts: Sequence[str]) -> list[Pair]:
    """Every probe for every expert."""
    asked = {expert: request.wants_logprobs and expert not in request.free for expert in experts}
    return [Pair(probe, e, request.key(e, probe), wants) for e, wants in asked.items() for probe in request.probes]


def taken_answers(request: CollectRequest, pairs: Sequence[Pair], known: Mapping[str, Answer]) -> list[Answer]:
    """Answers of another machine to pairs without an answer here, unless something decisive has changed since."""
    if request.is_asking_all:
        return []
    given = {answer.key: answer for answer in request.given}
    return [
        given[pair.key].model_copy(update={"probe_id": pair.probe.id, "expert": pair.expert})
        for pair in pairs
        if pair.key in given and pair.key not in known
    ]


def is_wanted(request: CollectRequest, known: Answer | None) -> bool:
    """Returns whether a pair is still to be asked."""
    return known is None or request.is_asking_all or (request.is_asking_failed and bool(known.failure))


def untimed(pairs: Sequence[Pair], wanted: Sequence[Pair], answers: Mapping[str, Answer]) -> list[Pair]:
    """Pairs with an answer of another machine that are asked here too, so that `TIMED` latencies of each expert are
    known here. They are the middle ones by length."""
    timed = Counter(pair.expert for pair in wanted)
    timed.update(pair.expert for pair in pairs if (a := answers.get(pair.key)) and a.latency_ms is not None)
    found: list[Pair] = []
    for expert in dict.fromkeys(pair.expert for pair in pairs):
        rest = [pair for pair in pairs if pair.expert == expert and pair.key in answers]
        rest = [pair for pair in rest if answers[pair.key].latency_ms is None]
        rest.sort(key=lambda pair: answers[pair.key].output_tokens or 0)
        lacking = min(max(0, TIMED - timed[expert]), len(rest))
        start = (len(rest) - lacking) // 2
        found += rest[start : start + lacking]
    return found


@dataclass
class Asking:
    """Pairs being asked: answers go into `answers` and the journal."""

    request: CollectRequest
    answers: dict[str, Answer]
    journal: Journal
    show: Show
    total: int = 0
    done: int = 0
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    stopped: list[str] = field(default_factory=list)
    has_answer: bool = False

    async def ask(self, pairs: Sequence[Pair]) -> None:
        """Asks one expert after the other: engines batch best within one adapter.

        Raises:
            RouterError: no expert can be asked at this address. Answers received so far are in the journal.
        """
        self.total += len(pairs)
        async with client_of(self.request) as client:
            for expert, own in groupby(pairs, key=lambda pair: pair.expert):
                await self._ask_expert(client, expert, list(own))

    async def _ask_expert(self, client: ChatClient, expert: str, pairs: list[Pair]) -> None:
        """Makes the first few calls, and all others unless those brought no answer."""
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
        """Says that an expert is given up: too many calls to it failed, and none was answered."""
        own = [answer for answer in self.answers.values() if answer.expert == expert]
        n_refused = sum(count for (name, _), count in self.errors.items() if name == expert)
        is_silent = all(answer.failure for answer in own)
        return is_silent and (n_refused >= FIRST_REFUSED or n_refused + len(own) >= FIRST_FAILED)

    async def _ask_some(self, client: ChatClient, pairs: Sequence[Pair]) -> CallError | None:
        """Asks pairs, a few at once. Returns what kept one from being asked: there is no connection, which ends
        it, or otherwise the last error."""
        errors = list[CallError]()
        if self.request.spread is not None and len(pairs) > FIRST_FAILED:
            for part in self.request.spread.asked(self.request.place, pairs):
                errors += [error for each in part if (error := self._taken(each)) is not None]
        else:
            await self._ask_here(client, pairs, errors)
        return next((error for error in errors if error.fault is Fault.ADDRESS), errors[-1] if errors else None)

    async def _ask_here(self, client: ChatClient, pairs: Sequence[Pair], errors: list[CallError]) -> None:
        waiting = iter(pairs)

        async def work() -> None:
            for pair in waiting:
                try:
                    self._taken(await asked_in_time(client, pair))
                except CallError as error:
                    errors.append(error)
                    self._taken(Refusal(pair.expert, error.reason, error.fault, error.quoted))
                if any(error.fault is Fault.ADDRESS for error in errors):
                    return

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self.request.concurrency, len(pairs))):
                tasks.create_task(work())

    def _taken(self, found: Asked) -> CallError | None:
        """Keeps an answer or counts a refusal, which it returns as an error."""
        if isinstance(found, Refusal):
            self.errors[found.expert, found.reason] += 1
        else:
            self.has_answer |= not found.failure
            self.journal.append(found)
            self.answers[found.key] = found
        self.done += 1
        self.show(f"asking {found.expert}: {self.done} of {self.total} answers")
        return found.error() if isinstance(found, Refusal) else None


def told(client: ChatClient, expert: str, error: CallError) -> str:
    """A server's error with its address and the model."""
    said = f': "{error.quoted}"' if error.quoted else ""
    return (
        f"{client.shown_url} gives {error.reason} for model '{expert}'{said}; check the address, the key and the name"
    )


def listed_errors(errors: Mapping[tuple[str, str], int]) -> str:
    """The most frequent errors as one line of a message."""
    frequent = Counter(errors).most_common(MAX_NAMED_ERRORS)
    return "; ".join(f"{expert}: {reason}, {count} times" for (expert, reason), count in frequent) or "none was asked"


def earlier_experts(request: CollectRequest, answers: Mapping[str, Answer]) -> tuple[str, ...]:
    """Experts that answered some of these probes before and are not asked now: a table without them would make a router
    that no longer knows them."""
    found = {answer.expert for answer in answers.values()} - set(request.experts)
    kept = sorted(found if request.kept is None else found & request.kept)
    return tuple(expert for expert in kept if any(pair.key in answers for pair in pairs_of(request, [expert])))


async def graded_table(
    request: CollectRequest,
    graders: Mapping[str, Grader],
    answers: Mapping[str, Answer],
    experts: Sequence[str],
    show: Show,
) -> OutcomeTable:
    """All probes and these experts, graded; NaN where there is no answer."""
    shape = (len(request.probes), len(experts))
    matrices: dict[str, FloatArray] = {
        name: np.full(shape, np.nan, dtype=np.float32)
        for name in ("score", "cost_usd", "output_tokens", "latency_ms", "logprob")
    }
    speeds = {expert: ms_per_token(answers.values(), expert) for expert in experts}
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
            "latency_ms": latency_ms(answer, speeds[experts[column]]),
            "logprob": answer.logprob,
        }
        for name, matrix in matrices.items():
            matrix[row, column] = np.nan if known[name] is None else known[name]
    sizes = {name: request.facts[name].active_params_b for name in experts if name in request.facts}
    keys = await compared(request, [(r, c, a.text) for r, c, a in cells if not a.failure and not a.abstains], show)
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
        logprobs=matrices["logprob"] if np.isfinite(matrices["logprob"]).any() else None,
    )


async def scores_of(
    request: CollectRequest, graders: Mapping[str, Grader], answers: Sequence[tuple[Probe, Answer]], show: Show
) -> list[float]:
    """Scores in the order of the answers; 0 where there is nothing to grade."""
    scores = [0.0] * len(answers)
    graded = [at for at, (_, answer) in enumerate(answers) if not (answer.failure or answer.abstains)]
    if request.spread is not None:
        parts = request.spread.graded([(answers[at][0].grader, answers[at][1].text) for at in graded])
        for at, score in zip(graded, (score for part in parts for score in part), strict=True):
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
        for _ in range(min(request.concurrency, len(graded))):
            tasks.create_task(work())
    return scores


async def compared(
    request: CollectRequest, answers: Sequence[tuple[int, int, str]], show: Show
) -> list[tuple[int, int, str | None]]:
    """The keys of the answers that can be compared; a judge is asked where experts.yaml declares one."""
    found = {row: kind_of_probe(probe, request.compared_by) for row, probe in enumerate(request.probes)}
    kinds = {row: kind for row, kind in found.items() if kind is not None}
    if any(kind.is_slow for kind in kinds.values()):
        show("comparing answers")
    async with client_of(request) as client:
        texts, ask = request.probes, asks_by(client)
        return await keys_of(answers, kinds, {row: Question(texts[row].text, request.embed, ask) for row in kinds})


@asynccontextmanager
async def client_of(request: CollectRequest) -> AsyncIterator[ChatClient]:
    """A client of the API that experts are asked by."""
    headers = {PROBE_HEADER: "1"} | ({"authorization": f"Bearer {request.api_key}"} if request.api_key else {})
    timeout = aiohttp.ClientTimeout(total=request.timeout_s)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield ChatClient(session, request.base_url, request.api_key)


def ms_per_token(answers: Iterable[Answer], expert: str) -> float | None:
    """Mean time of this machine per output token of an expert; None where nothing was timed."""
    own = [answer for answer in answers if answer.expert == expert and answer.latency_ms and not answer.failure]
    n_tokens = sum(answer.output_tokens or 0 for answer in own)
    return sum(answer.latency_ms or 0.0 for answer in own) / n_tokens if n_tokens else None


def latency_ms(answer: Answer, speed: float | None) -> float | None:
    """Milliseconds as measured here, otherwise of the tokens at this machine's speed; None where neither is known."""
    if answer.latency_ms is not None:
        return answer.latency_ms
    return None if speed is None or answer.output_tokens is None else speed * max(1, answer.output_tokens)


def cost_usd(answer: Answer, facts: ModelFacts) -> float | None:
    """USD: tokens times price; None where either is unknown."""
    amounts = (answer.prompt_tokens, facts.price_in_per_m_usd, answer.output_tokens, facts.price_out_per_m_usd)
    if None in amounts:
        return None
    tokens_in, price_in, tokens_out, price_out = (float(amount or 0) for amount in amounts)
    return (tokens_in * price_in + tokens_out * price_out) / 1e6
