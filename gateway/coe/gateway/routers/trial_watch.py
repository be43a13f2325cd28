"""Watches a router on trial, and takes it back as soon as the log shows that it is worse.

Gateways that share a database each watch, from the same rows: what they find is the same, and ending a trial that has
ended already does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from pathlib import Path

from coe.base.errors import ArtifactError, StoreError
from coe.decision_log.e_process import log_e_worse
from coe.decision_log.router_versions import RouterVersions, TrialEvidence
from coe.fleet.processes.tasks import Poller
from coe.fleet.router_registry import withdraw
from coe.router.live_pointer import LivePointer, Trial, read_pointer

LOOK_EVERY_S = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialFinding:
    """log E of the two questions, each asked at half of alpha; larger is worse for the candidate."""

    reward: float
    failures: float

    def limit(self, trial: Trial) -> float:
        """The value that either has to reach: by the union bound both together err with chance alpha at most."""
        return math.log(2 / trial.alpha)


def find(evidence: TrialEvidence, trial: Trial) -> TrialFinding:
    return TrialFinding(
        reward=log_e_worse(evidence.candidate_reward, evidence.live_reward, trial.margin, evidence.past_reward),
        failures=log_e_worse(
            evidence.candidate_success, evidence.live_success, trial.error_margin, evidence.past_success
        ),
    )


def reason_to_withdraw(evidence: TrialEvidence, finding: TrialFinding, trial: Trial) -> str | None:
    """The reason why a trial has to end, or None."""
    limit = finding.limit(trial)
    if finding.failures >= limit:
        shares = [1.0 - (arm.mean or 0.0) for arm in (evidence.candidate_success, evidence.live_success)]
        return f"{shares[0]:.1%} of its decisions failed, {shares[1]:.1%} of the live router's"
    if finding.reward >= limit:
        means = evidence.candidate_reward.mean or 0.0, evidence.live_reward.mean or 0.0
        return (
            f"its mean reward is {means[0]:.3f} in {evidence.candidate_reward.n:.0f} conversations, the live router's "
            f"{means[1]:.3f} in {evidence.live_reward.n:.0f}"
        )
    return None


class TrialWatch(Poller):
    """Looks every `LOOK_EVERY_S` at `live.json` in a folder; a database that is away delays it."""

    def __init__(self, folder: Path, versions: RouterVersions) -> None:
        super().__init__("the watch over routers", LOOK_EVERY_S, (StoreError, ArtifactError, OSError))
        self._folder = folder
        self._versions = versions
        self._noted: LivePointer | None = None
        self.finding: TrialFinding | None = None
        self.withdrawals = 0

    async def look(self) -> None:
        """Keeps the content of `live.json` in SQL, and judges the trial once. Raises StoreError, ArtifactError,
        OSError."""
        pointer = await asyncio.to_thread(self._note)
        if pointer is None or pointer.trial is None:
            self.finding = None
            return
        trial = pointer.trial
        evidence = await asyncio.to_thread(self._versions.evidence, pointer.version, trial)
        self.finding = find(evidence, trial)
        reason = reason_to_withdraw(evidence, self.finding, trial)
        if reason is not None:
            self.withdrawals += await asyncio.to_thread(withdraw, self._folder, trial, reason)
            await asyncio.to_thread(self._note)

    def _note(self) -> LivePointer | None:
        """The present pointer, which SQL then knows."""
        pointer = read_pointer(self._folder)
        if pointer is not None and pointer != self._noted:
            self._versions.note(pointer)
            self._noted = pointer
        return pointer
