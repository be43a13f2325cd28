"""A day of traffic on the shipped composition, by the commands that `coe up` runs: only the answers are simulated."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from coe.base.shipped import seed_folder
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionInputs
from coe.decision_log.feedback_types import Feedback, FeedbackKind
from coe.gateway.lifecycle.up import run_coe
from coe.gateway.settings import Settings, on_folder
from coe.router.build import live_router
from coe.router.config.composition import load_config
from coe.router.reading.features import to_bytes
from coe.router.types import GENERAL, Query, QueryFacts
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.fit_inputs import labelled_queries, open_encoder
from coe.training.learned_map import explored_shares
from coe.training.types import OutcomeTable
from tests.training.log_records import record
from tests.training.trained_folder import outcome_table

ROOT = Path(__file__).parents[2]
HOURS, AN_HOUR = (2, 4), 1500
"""Rounds of learning, too few to be sure that the change is seen or enough, and requests between two of them: as many
as in a day."""

KEYS, RATED, PROBES = 40, 0.3, 60
OWN = {
    "arithmetic": "calculator",
    "extraction": "extractor",
    "classification": "labeler",
    "conversion": "converter",
    "sql": "sql-writer",
}
FALLS, SHARE = "sql", 0.3
"""Category whose expert falls after the first hour, and its share of the traffic."""


def graded(
    truth: np.ndarray, rows: tuple[str, ...], experts: tuple[str, ...], rng: np.random.Generator
) -> OutcomeTable:
    """Right and wrong answers to `PROBES` probes of each row, right as often as `truth` (rows, experts) says. They are
    drawn: shares without noise would look like less spread than there is."""
    prompts = [(name, i) for name in rows for i in range(PROBES)]
    scores = (rng.random((len(prompts), len(experts))) < np.repeat(truth, PROBES, axis=0)).astype(np.float32)
    return outcome_table(prompts, experts, scores)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("hours", [HOURS[0], pytest.param(HOURS[1], marks=pytest.mark.simulation)])
async def test_an_expert_that_falls_is_left_within_the_day_and_nothing_worse_takes_over(
    hours: int, tmp_path: Path
) -> None:
    """The experts of the shipped composition: the generalist is right in 55 of 100 answers, each other one in 80 of its
    own category and in 40 elsewhere, until that of SQL falls to 27. Nothing is switched on: exploration, evidence and
    rounds are those of `coe up`."""
    rng, config_path = np.random.default_rng(303), ROOT / "experts.yaml"
    config = load_config(config_path)
    rows, experts = (*config.learned_categories, GENERAL), tuple(config.experts)
    truth = np.full((len(rows), len(experts)), 0.4)
    truth[:, experts.index("generalist")] = 0.55
    for category, name in OWN.items():
        truth[rows.index(category), experts.index(name)] = 0.8
    write_outcomes(graded(truth, rows, experts, rng), tmp_path / "outcomes" / "probes")
    settings = Settings(config_path=config_path, data_dir=tmp_path)
    await run_coe(on_folder("train", settings), os.environ)
    first = live_router(config, tmp_path)
    assert first.expert_of()[FALLS] == OWN[FALLS]
    loser = first.expert_of()[FALLS]
    queries = [query for query in labelled_queries(config, seed_folder()) if query.category != GENERAL]
    vectors = open_encoder(config.router.encoder, tmp_path / "cache").encode([query.text for query in queries])
    of = np.array([rows.index(query.category) for query in queries])
    is_falling = of == rows.index(FALLS)
    chance = np.where(is_falling, SHARE / is_falling.sum(), (1.0 - SHARE) / (~is_falling).sum())
    database = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    number, router, start = 0, first, time.time()
    for hour in range(hours):
        if hour == 1:
            truth[rows.index(FALLS), experts.index(loser)] /= 3.0
        inputs = DecisionInputs(encoder=router.encoder.fingerprint, features="", settings="", facts=QueryFacts())
        records, thumbs = [], []
        for asked in rng.choice(len(queries), size=AN_HOUR, p=chance).tolist():
            query, vector = queries[asked], vectors[asked : asked + 1]
            decision = router.decide(Query(query.text, ""), rng=rng, embedding=vector)
            key = f"key-{int(rng.integers(KEYS))}"
            served = {"decision": decision, "served_expert": decision.expert, "key_id": key, "inputs": inputs}
            served["at"] = start + number
            records.append(record(number, text_hash=f"h{asked}", embedding=to_bytes(vector), **served))
            is_up = rng.random() < truth[of[asked], experts.index(decision.expert)]
            if rng.random() < RATED:
                thumbs.append((records[-1].decision_id, key, float(is_up)))
            number += 1
        database.write_decisions(records)
        for decision_id, key, value in thumbs:
            database.put_feedback(
                Feedback(decision_id=decision_id, kind=FeedbackKind.THUMB, value=value, at=1e6, key_id=key)
            )
        await run_coe(on_folder("retrain", settings), os.environ)
        router = live_router(config, tmp_path)
    database.close()
    qualities: list[list[float]] = []
    for shares in (explored_shares(each, "default") for each in (first, router)):
        scores = [{name: truth[i, experts.index(name)] for name in own} for i, own in enumerate(shares)]
        qualities.append(
            [sum(own[name] * of_row[name] for name in own) for own, of_row in zip(shares, scores, strict=True)]
        )
    gains = dict(zip(rows, np.subtract(qualities[1], qualities[0]).tolist(), strict=True))
    assert min(gains.values()) > -0.1  # challengers included, of which some only look better
    moved = {name: truth[i, experts.index(router.expert_of()[name])] for i, name in enumerate(rows)}
    assert all(truth[i, experts.index(first.expert_of()[name])] <= moved[name] for i, name in enumerate(rows))
    if hours == HOURS[1]:
        assert gains[FALLS] > 0.05
