"""Inputs of `coe eval robustness`: a router without exploration, and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from base.shipped import seed_folder
from eval.probe_set import load_probes
from eval.robustness.flips import Decide, KnownScores
from router.artifact import load_artifact
from router.build import live_router, load_router, table_router
from router.config import load_config
from router.live_pointer import read_pointer
from router.pipeline import Router
from router.types import GENERAL, QueryBatch, RoutingDecision
from training.datasets.labelled_queries import numbered_queries, read_seed
from training.datasets.outcomes import read_outcomes
from training.split import split_of

ENCODE_BATCH = 64


@dataclass(frozen=True)
class Texts:
    """Texts to measure on, where they come from, and the scores of experts on them where known."""

    texts: tuple[str, ...]
    source: str
    known: KnownScores | None = None


def find_router(folder: Path | None, config: Path, data_dir: Path, *, is_table: bool) -> Router:
    """The router to test, with exploration off: its dice would be counted as flips.

    Args:
        folder: a router's folder, or a folder of routers with a live one; None takes the live one of `data_dir`.
        is_table: take the router alone, over the models it was fitted on, without experts.yaml.

    Raises:
        ArtifactError, ConfigError: as the loaders.
    """
    if folder is None:
        router = live_router(load_config(config), data_dir)
    else:
        exact = router_folder(folder)
        router = table_router(load_artifact(exact)) if is_table else load_router(load_config(config), exact)
    still = {name: replace(policy, exploration=None) for name, policy in router.policies.items()}
    return replace(router, policies=still)


def router_folder(folder: Path) -> Path:
    """The folder of one router: this one, or the live one of a folder of routers. Raises ArtifactError."""
    pointer = read_pointer(folder)
    return folder if pointer is None else folder / pointer.version


def decider(router: Router, policy: str, progress: Callable[[str], None]) -> Decide:
    """Decides texts as the gateway does: stripped, all experts up."""

    def decide(texts: Sequence[str]) -> Sequence[RoutingDecision]:
        decisions: list[RoutingDecision] = []
        for start in range(0, len(texts), ENCODE_BATCH):
            progress(f"deciding {start} of {len(texts)} texts")
            part = [text.strip() for text in texts[start : start + ENCODE_BATCH]]
            batch = QueryBatch.of(part, router.encoder.encode(part))
            decisions.extend(router.decide_batch(batch, rng=np.random.default_rng(0), policy=policy))
        return decisions

    return decide


def find_texts(queries: Path | None, outcomes: Path | None) -> Texts:
    """Texts of a JSON lines file (key `text`), of the test split of an outcome table, or our own.

    Raises:
        DataError: with file and line or row.
    """
    if queries is not None:
        rows = read_seed(queries) if queries.is_dir() else [query for _, query in numbered_queries(queries, GENERAL)]
        return Texts(unique(query.text for query in rows), str(queries))
    if outcomes is None:
        return own_texts()
    table = read_outcomes(outcomes, keep_partial=True)
    test = table.split("test") if "test" in table.splits else table
    return Texts(test.texts, f"{outcomes}, {len(test.texts)} test prompts", KnownScores(test.experts, test.scores))


def own_texts() -> Texts:
    """The fifth of the seed set that no router is fitted on, and the probes."""
    seed = read_seed(seed_folder())
    held_out = [query.text for query in seed if split_of(query.text) == "test"]
    return Texts(unique([*held_out, *(probe.text for probe in load_probes())]), "held-out seed queries and probes")


def unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def drawn(texts: Texts, limit: int | None, seed: int) -> Texts:
    """At most `limit` of the texts, in their order."""
    if limit is None or len(texts.texts) <= limit:
        return texts
    rows = np.sort(np.random.default_rng(seed).choice(len(texts.texts), size=limit, replace=False))
    known = texts.known and KnownScores(texts.known.experts, texts.known.scores[rows])
    return replace(texts, texts=tuple(texts.texts[i] for i in rows), known=known)
