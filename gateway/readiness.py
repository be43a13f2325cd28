"""The reasons why a gateway cannot serve: at the start of `coe serve`, on `/readyz` and while it stops."""

from __future__ import annotations

from dataclasses import dataclass

from decision_log.sink import DecisionLog
from fleet.pool import ExpertPool
from gateway.live_router import LiveRouter


@dataclass
class Readiness:
    """Looks at router, log and experts. `is_stopping` is set when the gateway begins to end."""

    pool: ExpertPool
    live: LiveRouter
    sink: DecisionLog
    is_stopping: bool = False

    def missing(self, *, is_answered: bool = True) -> list[str]:
        """The reasons why this gateway cannot serve; empty when it is ready.

        Args:
            is_answered: an expert that gets requests is there, as `ExpertPool.is_answering` found.
        """
        lacks = []
        if self.is_stopping:
            lacks.append("the gateway is stopping")
        if self.live.current is None:
            reason = f" ({self.live.last_error})" if self.live.last_error else ""
            lacks.append(f"no router is loaded{reason}")
        if self.sink.problem is not None:
            lacks.append(f"the decision log cannot be written ({self.sink.problem})")
        if not ((self.pool.alive or self.pool.limited) and is_answered):
            lacks.append(f"no expert answers: {', '.join(self.pool.names)}")
        return lacks
