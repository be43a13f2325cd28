"""Records, and waiting for what happens behind `append`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from decision_log.decision_record import DecisionRecord, TerminalState, Usage
from router.types import DecisionReason, RoutingDecision

DEADLINE_S = 15.0


def make_record(seq: int, replica: str = "r1", text: str | None = None) -> DecisionRecord:
    return DecisionRecord(
        decision_id=f"{replica}-{seq}",
        request_id=f"req-{seq}",
        replica=replica,
        seq=seq,
        at=1_700_000_000.25 + seq,
        requested_model="auto",
        state=TerminalState.ANSWERED,
        decision=RoutingDecision(
            expert="coder",
            category="code",
            confidence=0.9,
            is_fallback=False,
            reason=DecisionReason.MAP,
            likely_category="code",
            uncertainty=0.1,
            propensity=1.0,
            router_version="v1",
        ),
        served_expert="coder",
        status=200,
        usage=Usage(prompt_tokens=3, completion_tokens=5),
        latency_ms=12.5,
        text=text,
    )


async def wait_until(is_met: Callable[[], bool]) -> None:
    """Polls until the condition holds. Raises AssertionError after `DEADLINE_S`."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_met():
        assert time.monotonic() < deadline, "the condition did not come to hold in time"
        await asyncio.sleep(0.01)


@pytest.fixture(name="make_record")
def make_record_fixture() -> Callable[..., DecisionRecord]:
    return make_record


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[[Callable[[], bool]], object]:
    return wait_until
