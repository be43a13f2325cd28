"""Request of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.quality import QualityMatrix
from router.section import PluginConfig
from training.category_mix import AskedQueries
from training.graded_queries import LoggedQueries
from training.types import OutcomeTable


@dataclass(frozen=True)
class FitRequest:
    """Request of a fit. `experts` are the columns of `evidence`. Without `is_holding_out` every query is trained on and
    the manifest holds no figures: for a caller that keeps its own test set."""

    encoder_config: PluginConfig
    classifier: PluginConfig
    scorer: PluginConfig
    categories: tuple[str, ...]
    experts: tuple[str, ...]
    evidence: QualityMatrix
    alpha: float
    data_fingerprints: Mapping[str, str]
    parents: tuple[str, ...] = ()
    is_holding_out: bool = True
    outcomes: OutcomeTable | None = None
    """Graded queries that a learned scorer is fitted on; None leaves the map."""
    builtins: OutcomeTable | None = None
    """Grades of the experts that are not language models; an answer that they did not give has no tokens."""
    logged: LoggedQueries | None = None
    """Answers of the decision log that a learned scorer is fitted on as well."""
    asked: AskedQueries | None = None
    """Queries of the log, whose mix of categories stage 1's prior follows; None: that of the labelled queries."""
    is_traffic: bool = False
    """The labelled queries are a sample of the traffic: a category's mass is the share of them that is served as it."""
