"""A limit on the retries that the gateway adds to the experts' load, so that an outage is not made worse."""

from __future__ import annotations

SHARE = 0.1  # of requests; gRPC's retry throttling uses the same order (A6: tokenRatio 0.1)
BURST = 10.0


class RetryBudget:
    """A bucket that every request fills a little and every further try empties by one."""

    def __init__(self, share: float = SHARE, burst: float = BURST) -> None:
        self._share = share
        self._burst = burst
        self._tokens = burst

    def earn(self) -> None:
        """A request arrived."""
        self._tokens = min(self._burst, self._tokens + self._share)

    def spend(self) -> bool:
        """Takes a further try; False when there is none left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
