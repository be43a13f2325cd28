"""The journal of experts' answers to probes, stored before grading.

Each answer is one JSON line, so an interrupted collection resumes, and a collection may begin with answers that were
written on another machine. Scores are not stored: grading is deterministic and takes seconds, so a changed grader costs
no new answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field

from coe.base.errors import ABSTAINED, ABSTAINED_STATUS
from coe.eval.chat_client import SAMPLING, CallError, ChatClient, Fault
from coe.eval.probe_set import Probe
from coe.router.prices.usage import usage_of
from coe.router.types import Record

RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0)
_ABSTAINED: Final = f"HTTP {ABSTAINED_STATUS} ({ABSTAINED})"


class Answer(Record):
    """One expert's answer to one probe, or its `failure`, which scores 0. An expert that abstained has an empty text.

    `key` names all that decides the answer (`answer_key`). `latency_ms` is None when another machine measured it.
    """

    key: str
    probe_id: str
    expert: str
    text: str = ""
    prompt_tokens: int | None = Field(default=None, ge=0)
    output_tokens: int | None = Field(default=None, ge=0)
    kinds: dict[str, int] = Field(default_factory=dict, description="of its usage, see router.usage.Usage")
    latency_ms: float | None = Field(default=None, ge=0)
    failure: str = ""


def answer_key(probe: Probe, fingerprint: str) -> str:
    """Return the first 16 hex digits of a SHA-256 over the prompt, the sampling and the expert's `fingerprint`."""
    decisive = [probe.text, probe.max_tokens, SAMPLING, fingerprint]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Pair:
    """One probe for one expert, and the key of the answer."""

    probe: Probe
    expert: str
    key: str

    @property
    def cell(self) -> tuple[str, str]:
        """The pair's place in a table. Two probes of one text, or two experts of one model, may share a key."""
        return self.probe.id, self.expert

    def answered(self, started: float, **found: Any) -> Answer:
        """Build the answer, or failure, to a request sent at `started` (seconds of `time.perf_counter`)."""
        latency_ms = 1000 * (time.perf_counter() - started)
        return Answer(key=self.key, probe_id=self.probe.id, expert=self.expert, latency_ms=latency_ms, **found)


def token_counts(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the token counts of a usage object; nothing if it lacks one of the two totals."""
    if not {"prompt_tokens", "completion_tokens"} <= said.keys():
        return {}
    usage = usage_of(said)
    return {"prompt_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens, "kinds": usage.kinds}


async def ask_pair(client: ChatClient, pair: Pair) -> Answer:
    """Ask one pair, and retry while the expert is away for a moment (429, 503, no connection). A lasting failure is an
    answer, too, with its latency: an HTTP error costs nothing, the cost of a lost answer is unknown.

    Raises:
        CallError: the fault is not the expert's.
    """
    waits_s = iter(RETRY_WAITS_S)
    while True:
        started = time.perf_counter()
        try:
            text, usage = await client.ask(pair.expert, pair.probe)
            return pair.answered(started, text=text, **token_counts(usage))
        except CallError as error:
            if error.reason == _ABSTAINED:
                return pair.answered(started, prompt_tokens=0, output_tokens=0)
            wait_s = next(waits_s, None) if error.is_retryable else None
            if wait_s is None and error.fault is not Fault.EXPERT:
                raise
            if wait_s is None:
                billed = 0 if error.is_answered else None
                return pair.answered(started, prompt_tokens=billed, output_tokens=billed, failure=error.reason)
            await asyncio.sleep(wait_s if error.retry_after_s is None else error.retry_after_s)
