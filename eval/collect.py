"""`coe eval collect`: runs prompts through experts, grades the answers and writes an outcome table.

Shapes: n probes, m experts.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from eval.journal import GradedAnswer, Journal, probe_hash
from eval.probe_set import Probe
from eval.types import Grader
from router.errors import BackendError, RouterError
from router.json_text import from_json
from router.types import FloatArray
from training.datasets.outcomes import write_outcomes
from training.split import split_of
from training.types import ModelFacts, OutcomeTable

JOURNAL_FILE = "journal.jsonl"
METRIC = "graded"
MAX_NAMED_ERRORS = 5
RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0)
MAX_RETRY_AFTER_S = 30.0

OnPair = Callable[[str, str | None], None]
"""Told of each finished pair: its expert, and the error or None."""


@dataclass(frozen=True)
class CollectRequest:
    """What to collect. `base_url` is an API root such as http://127.0.0.1:8000/v1, where each expert is a model.

    `facts` gives sizes and prices; experts without any have unknown cost. `kept` are experts that may stay in the table
    with what they answered before, though they are not asked now; None keeps all of them. `timeout_s` bounds one
    answer.
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


@dataclass(frozen=True)
class Pair:
    """One probe for one expert."""

    probe: Probe
    grader: Grader
    expert: str


@dataclass(frozen=True)
class Collection:
    """The table, how many pairs were taken from the journal, and errors as (expert, reason) -> count."""

    table: OutcomeTable
    n_reused: int
    errors: Mapping[tuple[str, str], int]


class ChatClient:
    """Asks one OpenAI-compatible endpoint, greedily and without streaming."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._url = f"{base_url.rstrip('/')}/chat/completions"

    async def ask(self, expert: str, probe: Probe) -> tuple[str, Mapping[str, object]]:
        """The answer's text and its usage.

        Raises:
            BackendError: no connection, too late, an HTTP error, or an answer of another shape.
        """
        body = {
            "model": expert,
            "messages": [{"role": "user", "content": probe.text}],
            "max_tokens": probe.max_tokens,
            "temperature": 0,
        }
        try:
            async with self._session.post(self._url, json=body) as response:
                content = await response.read()
        except TimeoutError as error:
            raise BackendError("no answer in time", status=504) from error
        except aiohttp.ClientError as error:
            raise BackendError(f"no connection ({type(error).__name__})", status=503, is_retryable=True) from error
        if response.status != 200:
            wait = response.headers.get("retry-after", "")
            raise BackendError(
                f"HTTP {response.status} ({error_code(content)})",
                is_retryable=response.status in (429, 503),
                retry_after_s=min(float(wait), MAX_RETRY_AFTER_S) if wait.isdigit() else None,
            )
        return read_answer(content)


def error_code(content: bytes) -> str:
    """The code or type in an OpenAI error body."""
    try:
        error = from_json(content)["error"]
        return str(error.get("code") or error.get("type") or "no code")
    except (ValueError, TypeError, KeyError, AttributeError):
        return "no error body"


def read_answer(content: bytes) -> tuple[str, Mapping[str, object]]:
    """Text and usage of a chat completion. Raises BackendError on another shape."""
    try:
        completion = from_json(content)
        text = completion["choices"][0]["message"]["content"]
        usage = completion.get("usage")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BackendError("the answer is not a chat completion") from error
    return text if isinstance(text, str) else "", usage if isinstance(usage, dict) else {}


def tokens(usage: Mapping[str, object], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else None


async def graded(client: ChatClient, pair: Pair) -> GradedAnswer:
    """Asks and grades one pair. Raises BackendError."""
    started = time.perf_counter()
    text, usage = await client.ask(pair.expert, pair.probe)
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


async def graded_in_time(client: ChatClient, pair: Pair) -> GradedAnswer:
    """As `graded`, waiting for an expert that is away for a moment (429, 503, no connection). Raises BackendError."""
    for wait_s in RETRY_WAITS_S:
        try:
            return await graded(client, pair)
        except BackendError as error:
            if not error.is_retryable:
                raise
            await asyncio.sleep(error.retry_after_s if error.retry_after_s is not None else wait_s)
    return await graded(client, pair)


async def collect(request: CollectRequest, *, on_pair: OnPair) -> Collection:
    """Collects what the journal lacks and writes the table of all.

    Raises:
        ConfigError: a probe names a wrong grader.
        DataError: a damaged journal.
        RouterError: no expert answered any probe.
    """
    journal = Journal(request.out / JOURNAL_FILE)
    answers = {(a.probe_hash, a.expert): a for a in journal.read()}
    graders = [(probe, probe.grader.build()) for probe in request.probes]
    pairs = [Pair(probe, grader, expert) for expert in request.experts for probe, grader in graders]
    missing = [pair for pair in pairs if (probe_hash(pair.probe), pair.expert) not in answers]
    for pair in pairs:
        if (probe_hash(pair.probe), pair.expert) in answers:
            on_pair(pair.expert, None)
    errors = await collect_pairs(request, missing, answers, journal, on_pair)
    table = outcome_table(request, answers, (*request.experts, *earlier_experts(request, answers)))
    if not np.isfinite(table.scores[:, : len(request.experts)]).any():
        raise RouterError(f"no expert answered any probe at {request.base_url}: {listed_errors(errors)}")
    write_outcomes(table.rows(np.asarray(np.isfinite(table.scores).any(axis=1))), request.out)
    return Collection(table, len(pairs) - len(missing), errors)


async def collect_pairs(
    request: CollectRequest,
    pairs: Sequence[Pair],
    answers: dict[tuple[str, str], GradedAnswer],
    journal: Journal,
    on_pair: OnPair,
) -> Counter[tuple[str, str]]:
    """Asks the pairs, a few at once, adds what was graded to `answers` and the journal, and returns the errors."""
    errors: Counter[tuple[str, str]] = Counter()
    waiting: Iterator[Pair] = iter(pairs)  # one expert after the other: engines batch best within one adapter
    headers = {"authorization": f"Bearer {request.api_key}"} if request.api_key else {}
    timeout = aiohttp.ClientTimeout(total=request.timeout_s)

    async def work(client: ChatClient) -> None:
        for pair in waiting:
            try:
                answer = await graded_in_time(client, pair)
            except BackendError as error:
                errors[pair.expert, str(error)] += 1
                on_pair(pair.expert, str(error))
                continue
            journal.append(answer)
            answers[answer.probe_hash, answer.expert] = answer
            on_pair(pair.expert, None)

    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session, asyncio.TaskGroup() as tasks:
        client = ChatClient(session, request.base_url)
        for _ in range(min(request.concurrency, len(pairs))):
            tasks.create_task(work(client))
    return errors


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
