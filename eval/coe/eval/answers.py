"""Answers of experts to probes, as they came.

One JSON line per answer: an interrupted collection resumes where it was, and a collection may begin with answers that
were written on another machine. Scores are not kept: grading is deterministic and takes seconds, so a changed grader
costs no answer.
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
    """One expert's answer to one probe, or its failure, which scores 0; `failure` says which. An expert that left the
    probe to others has answered nothing.

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
    """First 16 hex digits of a SHA-256 over the prompt, the sampling and the expert's `fingerprint`."""
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
        """Its place in a table. Keys may be the same for two probes of one text, or two experts of one model."""
        return self.probe.id, self.expert

    def answered(self, started: float, **found: Any) -> Answer:
        """The answer, or failure, to a question that was asked at `started` by the clock of `time.perf_counter`."""
        latency_ms = 1000 * (time.perf_counter() - started)
        return Answer(key=self.key, probe_id=self.probe.id, expert=self.expert, latency_ms=latency_ms, **found)


def counts(said: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens of an answer; none where its usage object lacks a count."""
    if not {"prompt_tokens", "completion_tokens"} <= said.keys():
        return {}
    usage = usage_of(said)
    return {"prompt_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens, "kinds": usage.kinds}


async def asked(client: ChatClient, pair: Pair) -> Answer:
    """Asks one pair, waiting for an expert that is away for a moment (429, 503, no connection). A failure for good is
    an answer, too, with its latency: an error costs nothing, the cost of a lost answer is unknown.

    Raises:
        CallError: it is not the expert's failure.
    """
    waits_s = iter(RETRY_WAITS_S)
    while True:
        started = time.perf_counter()
        try:
            text, usage = await client.ask(pair.expert, pair.probe)
            return pair.answered(started, text=text, **counts(usage))
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
