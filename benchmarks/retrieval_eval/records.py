"""report.json of `coe eval retrieval`. Scores are nDCG@10 in [0, 1]; an interval is [low, high] at 95%."""

from __future__ import annotations

from pydantic import Field

from coe.eval.metrics.intervals import Estimate, Range
from coe.router.types import Record


class ArmScore(Record):
    """One way to search, measured on the test queries of a collection or of several."""

    ndcg_at_10: float
    interval: Range
    gain: Estimate = Field(description="minus base, on the same queries")
    lead: Estimate = Field(description="coe minus this, on the same queries")

    @property
    def score(self) -> Estimate:
        return Estimate(mean=self.ndcg_at_10, interval=self.interval)


class CollectionReport(Record):
    """One collection."""

    documents: int
    queries: int = Field(description="judged test queries")
    labelled: int = Field(description="train queries in the pilot library")
    arms: dict[str, ArmScore]
    left_out: dict[str, ArmScore] = Field(
        description="arms when neither this collection's labels nor its expert are known"
    )
    experts: dict[str, float] = Field(description="expert or fusion -> nDCG@10 when it serves every query")
    shares: dict[str, float] = Field(description="arm that coe chose -> share of the queries, largest first")
    reasons: dict[str, float] = Field(description="why -> share of the queries")


class RetrievalReport(Record):
    """The whole report. `mean` averages over collections, `mean_prepared` over those with train queries."""

    title: str
    headline: str
    command: str
    created_at: str
    library_version: str
    settings: dict[str, str | float | bool]
    experts: tuple[str, ...]
    arm_meaning: dict[str, str]
    mean: dict[str, ArmScore]
    mean_prepared: dict[str, ArmScore]
    mean_left_out: dict[str, ArmScore]
    collections: dict[str, CollectionReport]
    losses: tuple[str, ...] = Field(description="where routing loses, in sentences")
    notes: tuple[str, ...]
