"""The work behind a gateway that is done once, however many workers serve: stream to SQL, retention, drift, trials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import Metric

from decision_log.consumer import Consumer
from decision_log.database import Database
from decision_log.housekeeping import Housekeeper
from decision_log.reward_pages import RewardPages
from decision_log.router_versions import RouterVersions
from decision_log.sink import new_replica
from gateway.drift_watch import DriftWatch
from gateway.part_metrics import drift_metrics, trial_metrics
from gateway.trial_watch import TrialWatch
from router.live_pointer import ROUTERS_FOLDER
from router.log_config import LogConfig


class LogKeeper:
    """Start it before the first request and close it after the last record.

    Raises:
        ConfigError: `redis_url` is not a Redis URL.
    """

    def __init__(self, data_dir: Path, config: LogConfig, redis_url: str, store: Database) -> None:
        self._consumer = Consumer(redis_url=redis_url, stream=config.stream, database=store, name=new_replica())
        self._retention = Housekeeper(store, None, keep_days=config.keep_days)
        self._trials = TrialWatch(data_dir / ROUTERS_FOLDER, RouterVersions(store))
        self._drift = DriftWatch(RewardPages(store))

    async def start(self) -> None:
        """Starts all of it; Redis and SQL may be away."""
        for part in (self._consumer, self._retention, self._trials, self._drift):
            await part.start()

    async def aclose(self) -> None:
        """Writes what is in the stream."""
        for part in (self._trials, self._drift, self._retention, self._consumer):
            await part.aclose()

    def metrics(self) -> Iterator[Metric]:
        """Counts of the watches."""
        yield from trial_metrics(self._trials)
        yield from drift_metrics(self._drift)
