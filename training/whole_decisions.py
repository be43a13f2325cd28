"""Decisions of the log with every expert that was weighed, where the record names only the best of many."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from base.errors import NoEligibleExpertError, RouterError
from decision_log.decision_record import DecisionRecord
from decision_log.replayed import NotReplayableError, decide_again
from fleet.router_registry import Registry
from router.brief_decision import brief
from router.build import load_router
from router.config import CoeConfig
from router.pipeline import Router
from router.protocols import Encoder
from router.types import FloatArray, RoutingDecision

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class WholeDecisions:
    """Makes them from the routers of a data folder; each is loaded once."""

    config: CoeConfig
    routers: Path
    encoder: Encoder
    _loaded: dict[str, Router | None] = field(default_factory=dict)

    def of(self, record: DecisionRecord, embedding: FloatArray) -> RoutingDecision | None:
        """The decision of a record, made again from its embedding (1, d); None where its router is gone.

        Where experts.yaml decides otherwise now, experts that the record does not name get a probability of 0: their
        chance is not known, and an estimate counts what they would do as unsupported.
        """
        logged, inputs = record.decision, record.inputs
        if logged is None or logged.rest is None:
            return logged
        router = self._router(logged.router_version)
        if router is None or inputs is None:
            return None
        try:
            again = decide_again(router, record, embedding)
            if brief(again, (record.served_expert,)).rest == logged.rest:
                return again
        except (NoEligibleExpertError, NotReplayableError):
            pass
        excluded = router.excluded(inputs.facts, [name for name in router.experts if name not in inputs.unreachable])
        others = set(router.experts) - {*excluded, *logged.eligible}
        changes = {"excluded": excluded, "outside_policy": dict.fromkeys(sorted(others), NOT_RECORDED)}
        return logged.model_copy(update=changes)

    def _router(self, version: str) -> Router | None:
        if version not in self._loaded:
            try:
                self._loaded[version] = load_router(self.config, Registry(self.routers).folder(version), self.encoder)
            except RouterError:  # it is gone, or experts.yaml has none of its experts
                self._loaded[version] = None
        return self._loaded[version]
