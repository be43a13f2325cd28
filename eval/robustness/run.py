"""One run of `coe eval robustness`, from a request to a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from eval.robustness.expectations import load_expectations
from eval.robustness.flip_records import RobustnessReport
from eval.robustness.flips import CASES_PER_FAMILY, KnownScores, measure_flips
from eval.robustness.inputs import Texts, decider, find_router, find_texts
from eval.robustness.verdicts import check_expectations


@dataclass(frozen=True)
class RobustnessRequest:
    """The options of a run. `router` None: the live one of `data_dir`; `queries` and `outcomes` None: our own texts."""

    command: str
    router: Path | None = None
    is_table: bool = False
    config: Path = Path("experts.yaml")
    data_dir: Path = Path("data")
    policy: str = "default"
    queries: Path | None = None
    outcomes: Path | None = None
    tests: Path | None = None
    is_measuring: bool = True
    families: tuple[str, ...] | None = None
    cases_per_family: int | None = CASES_PER_FAMILY
    limit: int | None = None
    max_flips: float = 0.05
    seed: int = 0


def run_robustness(request: RobustnessRequest, *, now: datetime, progress: Callable[[str], None]) -> RobustnessReport:
    """Loads, decides, counts.

    Raises:
        ConfigError, ArtifactError, DataError: with the offending value.
    """
    router = find_router(request.router, request.config, request.data_dir, is_table=request.is_table)
    router.policy(request.policy)  # refuses an unknown name before any work
    decide = decider(router, request.policy, progress)
    expectations = flips = None
    if request.tests is not None:  # before the measurement: a fault in the file is told at once
        loaded = load_expectations(request.tests, router.experts, router.categories)
        expectations = check_expectations(loaded, decide, file=str(request.tests))
    texts = Texts((), "none")
    if request.is_measuring:
        texts = drawn(find_texts(request.queries, request.outcomes), request.limit, request.seed)
        flips = measure_flips(
            decide,
            texts.texts,
            request.seed,
            request.families,
            cases_per_family=request.cases_per_family,
            known=texts.known,
        )
    return RobustnessReport(
        command=request.command,
        created_at=now.isoformat(timespec="seconds"),
        router_version=router.version,
        texts=texts.source,
        max_flips=request.max_flips,
        flips=flips,
        expectations=expectations,
    )


def drawn(texts: Texts, limit: int | None, seed: int) -> Texts:
    """At most `limit` of the texts, in their order."""
    if limit is None or len(texts.texts) <= limit:
        return texts
    rows = np.sort(np.random.default_rng(seed).choice(len(texts.texts), size=limit, replace=False))
    known = texts.known and KnownScores(texts.known.experts, texts.known.scores[rows])
    return replace(texts, texts=tuple(texts.texts[i] for i in rows), known=known)
