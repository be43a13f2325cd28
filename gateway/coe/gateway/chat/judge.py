"""The worker that judges a sample of answers, one at a time, while the gateway has little else to do.

For a sampled request an expert that was not chosen answers too, and the judge grades both answers by the rubric and
compares them, in both orders. Numbers are kept, texts are not.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coe.base.errors import BackendError, RouterError
from coe.decision_log.database import Database
from coe.decision_log.decision_record import TerminalState
from coe.decision_log.feedback_types import JudgedAnswer
from coe.fleet.calls.backend import MAX_ANSWER_BYTES, BackendRequest
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.processes.tasks import stop_task
from coe.gateway.chat.judge_prompts import (
    conversation_text,
    grade_body,
    pair_body,
    read_choice,
    read_grade,
    swapped_preference,
)
from coe.gateway.chat.log import cost_usd
from coe.gateway.exchange import ChatRow
from coe.gateway.experts.answer_reader import answer_text, read_answer
from coe.router.config.expert import ExpertConfig
from coe.router.config.feedback import JudgeConfig
from coe.router.types import RoutingDecision

MAX_WAITING = 8
QUIET_POLL_S = 0.2
MAX_WAIT_S = 60.0
ENOUGH = 200
"""Pairs by this judge and rubric after which an expert was compared enough: of uncertain requests only those of others
are judged (ours)."""

MAX_RUNNING_BESIDE = 2
"""Requests beside which it works (ours): it waits while more run."""

NOT_ASKED = ("stream", "stream_options", "n", "best_of")
"""Fields of a sampled request that another expert is not sent: it gives one answer, as a whole."""

DAY_S = 86_400.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """An answer to judge, while it waits in memory. `other` is the expert to ask besides the one that served."""

    decision_id: str
    body: Mapping[str, object]
    expert: str
    answer: str
    other: str | None


class Judge:
    """Offers never block; what finds the queue full or the budget spent is left out.

    Args:
        experts: entries of experts.yaml.
        running: gives the number of requests that the gateway serves now.
    """

    def __init__(
        self,
        settings: JudgeConfig,
        experts: Mapping[str, ExpertConfig],
        pool: ExpertPool,
        database: Database,
        running: Callable[[], int],
        seed: int | None = None,
    ) -> None:
        self._experts = experts
        self._settings = settings
        self._pool = pool
        self._database = database
        self._running = running
        self._rng = random.Random(seed)
        self._budget = Budget(settings.max_usd_per_day, time.monotonic)
        self._compared: Counter[str] = Counter()
        self._queue: asyncio.Queue[Sample] = asyncio.Queue(MAX_WAITING)
        self._rubric_hash = hashlib.sha256(settings.rubric.encode()).hexdigest()[:12]
        self._task: asyncio.Task[None] | None = None
        self.judged = self.left_out = 0

    def use(self, experts: Mapping[str, ExpertConfig], pool: ExpertPool) -> None:
        """Asks these experts from now on."""
        self._experts, self._pool = experts, pool

    def samples(self) -> bool:
        """Draws whether the next request's answer is to be kept until its end."""
        return self._rng.random() < self._settings.share

    def offer(self, row: ChatRow) -> None:
        """Takes a sampled chat that has ended, if it was routed and has an answer that a judge can read."""
        decision, served, facts, answer = row.decision, row.answered_by, row.chat.facts, row.answer.text
        if served is None or answer is None or decision is None or not decision.reason.is_routed:
            return
        if row.ending.state is not TerminalState.ANSWERED or facts.has_media or facts.has_tools:
            return
        other = self._other(decision, served)
        if other is None and self._settings.queries == "uncertain":
            return
        if self._queue.full() or not self._budget.has_money():
            self.left_out += 1
            return
        self._queue.put_nowait(Sample(row.context.decision_id, row.chat.body, served, answer, other))

    def _other(self, decision: RoutingDecision, served: str) -> str | None:
        """A random expert to answer besides the one that served; None where no other can be called.

        Of `uncertain` requests it is the one that a second draw of the router names, so the judge looks where
        exploration does, and as often. None where that draw names who served, or where both were compared enough.
        """
        candidates = [name for name in decision.eligible if name != served and name in self._pool.alive]
        if self._settings.queries == "all":
            return self._rng.choice(candidates) if candidates else None
        chance = dict(zip(decision.eligible, decision.eligible_probs, strict=True))
        drawn = self._rng.choices(list(chance), list(chance.values()))[0] if chance else served
        if drawn not in candidates or min(self._compared[served], self._compared[drawn]) >= ENOUGH:
            return None
        return drawn

    async def start(self) -> None:
        await self._count()
        self._task = asyncio.create_task(self._run(), name="judge")

    async def _count(self) -> None:
        """Counts in the database, because other gateways compare the same experts."""
        if self._settings.queries == "uncertain":
            judge = self._settings.expert, self._rubric_hash
            self._compared = await asyncio.to_thread(self._database.count_compared, *judge)

    async def aclose(self) -> None:
        """Stops; what waits is left out."""
        await stop_task(self._task)

    async def _run(self) -> None:
        while True:
            sample = await self._queue.get()
            try:
                await self._judge(sample)
                self.judged += 1
            except RouterError as error:
                self.left_out += 1
                logger.warning("decision %s was not judged (%s)", sample.decision_id, type(error).__name__)
            except Exception as error:  # noqa: BLE001
                # A traceback may hold what was said, so only the type is written down.
                self.left_out += 1
                logger.error("decision %s was not judged after a fault (%s)", sample.decision_id, type(error).__name__)

    async def _judge(self, sample: Sample) -> None:
        """Raises BackendError: an expert or the judge did not answer, the money is spent, or the gateway is busy."""
        ask = conversation_text(sample.body)
        found = [self._judgement(sample, sample.expert, "", await self._grade(ask, sample.answer))]
        if (other := sample.other) is not None:
            body = {name: value for name, value in sample.body.items() if name not in NOT_ASKED}
            answer = await self._ask(other, body)
            found.append(self._judgement(sample, other, "", await self._grade(ask, answer)))
            value, is_consistent = await self._compare(ask, sample.answer, answer)
            found.append(self._judgement(sample, sample.expert, other, value, is_consistent))
        await asyncio.to_thread(self._database.put_judgements, found)
        await self._count()

    def _judgement(
        self, sample: Sample, expert: str, other: str, value: float, is_consistent: bool | None = None
    ) -> JudgedAnswer:
        return JudgedAnswer(
            decision_id=sample.decision_id,
            judge=self._settings.expert,
            rubric=self._rubric_hash,
            expert=expert,
            other=other,
            value=value,
            is_consistent=is_consistent,
            at=time.time(),
        )

    async def _grade(self, ask: str, answer: str) -> float:
        reply = await self._ask(self._settings.expert, grade_body(ask, answer, self._settings.rubric))
        return understood(read_grade(reply))

    async def _compare(self, ask: str, served: str, other: str) -> tuple[float, bool]:
        """Share by which the served answer is preferred, asked in both orders, and whether both agree."""
        verdicts = []
        for first, second in ((served, other), (other, served)):
            reply = await self._ask(self._settings.expert, pair_body(ask, first, second, self._settings.rubric))
            verdicts.append(understood(read_choice(reply)))
        return swapped_preference(verdicts[0], verdicts[1])

    async def _ask(self, expert: str, body: Mapping[str, object]) -> str:
        """The text of one expert's answer, asked once the gateway is quiet. Raises BackendError."""
        await self._quiet()
        if not self._budget.has_money():
            raise BackendError("the day's money for judging is spent", status=503)
        if expert not in self._experts:
            raise BackendError(f"expert {expert} is no longer in experts.yaml", status=503)
        timeout_s = self._experts[expert].timeout_s
        request = BackendRequest({"model": expert, **body}, request_id="judge", timeout_s=timeout_s)
        status, raw = await self._pool.ask(expert, request, MAX_ANSWER_BYTES)
        facts = read_answer(raw)
        if status != 200 or facts is None or facts.error_code is not None:
            raise BackendError(f"expert {expert} gave no answer to judge (status {status})", status=502)
        self._budget.spend(cost_usd(facts.usage, self._experts[expert]))
        return answer_text(raw) or ""

    async def _quiet(self) -> None:
        """Returns when no more than `MAX_RUNNING_BESIDE` requests run. Raises BackendError after `MAX_WAIT_S`."""
        deadline = time.monotonic() + MAX_WAIT_S
        while self._running() > MAX_RUNNING_BESIDE:
            if time.monotonic() > deadline:
                raise BackendError("the gateway was never quiet enough to judge", status=503)
            await asyncio.sleep(QUIET_POLL_S)


def understood(value: float | None) -> float:
    """Raises BackendError: the judge said something else."""
    if value is None:
        raise BackendError("the judge's reply was none of those it was asked for", status=502)
    return value


class Budget:
    """At most so many US dollars in any day. A call's price is known when it has ended, so the last one may go beyond.

    Args:
        clock: seconds, only forward.
    """

    def __init__(self, max_usd_per_day: float, clock: Callable[[], float]) -> None:
        self._max_usd_per_day = max_usd_per_day
        self._clock = clock
        self._spent: deque[tuple[float, float]] = deque()

    def has_money(self) -> bool:
        """Returns True while less than the day's dollars were spent."""
        now = self._clock()
        while self._spent and self._spent[0][0] <= now - DAY_S:
            self._spent.popleft()
        return self._max_usd_per_day > 0 and sum(usd for _, usd in self._spent) < self._max_usd_per_day

    def spend(self, usd: float) -> None:
        if usd > 0:
            self._spent.append((self._clock(), usd))
