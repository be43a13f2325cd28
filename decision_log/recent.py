"""The last decisions of this process, which may not be in SQL yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from decision_log.decision_record import DecisionRecord
from decision_log.payloads import from_payload
from decision_log.privacy import apply_privacy
from decision_log.tombstones import is_erased
from router.log_config import PrivacyLevel

RECENT_RECORDS = 1024


class RecentDecisions:
    """The last `RECENT_RECORDS` records as the log keeps them: objects until they are spooled, then their payloads,
    which take a third of the memory.

    Args:
        key: of the keyed hashes.
    """

    def __init__(self, privacy: PrivacyLevel, key: bytes) -> None:
        self._privacy, self._key = privacy, key
        self._kept = OrderedDict[str, DecisionRecord | bytes]()  # a dict looks for its first among those that have gone

    def add(self, record: DecisionRecord) -> None:
        self._kept[record.decision_id] = record
        if len(self._kept) > RECENT_RECORDS:
            self._kept.popitem(last=False)

    def spooled(self, decision_id: str, payload: bytes) -> None:
        """That record is in the spool, as these bytes."""
        if decision_id in self._kept:
            self._kept[decision_id] = payload

    def get(self, decision_id: str) -> DecisionRecord | None:
        """A record as the log keeps it; None when it is not among the last."""
        found = self._kept.get(decision_id)
        if found is None or isinstance(found, DecisionRecord):
            return None if found is None else apply_privacy(found, self._privacy, self._key)
        record, _, embedding = from_payload(found)
        return record if embedding is None else record.model_copy(update={"embedding": embedding})

    def forget(self, erased: Mapping[str, float]) -> int:
        """Forgets records of subjects (by hash) that were made up to a time; how many."""
        gone = [each for each in self._kept if (record := self.get(each)) is not None and is_erased(record, erased)]
        for decision_id in gone:
            del self._kept[decision_id]
        return len(gone)
