"""`coe retrain` on a simulated log in SQLite: what it learns, holds out, promotes and declines."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import yaml
from sqlalchemy import create_engine, text

from router.artifact import load_artifact
from router.errors import ArtifactError, DataError
from router.types import (
    DecisionReason,
    DecisionRecord,
    RoutingDecision,
    TerminalState,
)
from training.datasets.decision_log import read_log
from training.datasets.outcomes import write_outcomes
from training.first_fit import first_router
from training.gate import Verdict
from training.registry import Registry
from training.retrain import in_training
from training.retrain_run import RetrainRequest, run_retrain
from training.types import OutcomeTable

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EXPERTS = ("left", "right")
CONFIG = {
    "categories": {"facts": "questions", "sql": "queries", "general": "the rest"},
    "experts": {name: {"engine": "echo", "model": name, "params_b": 1.0} for name in EXPERTS},
    "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic", "inverse_l2": 10.0}, "alpha": 0.5},
}


def outcome_table() -> OutcomeTable:
    """Twenty graded prompts a category: `left` is a little better everywhere, and neither is good."""
    rows = [(category, i) for category in ("facts", "sql", "general") for i in range(20)]
    scores = np.array([[float(i % 2 == 0), float(i % 3 == 0)] for _, i in rows], np.float32)
    unknown = np.full(scores.shape, np.nan, np.float32)
    return OutcomeTable(
        prompt_ids=tuple(f"{c}-{i}" for c, i in rows),
        texts=tuple(f"probe number {i} of {c}" for c, i in rows),
        categories=tuple(c for c, _ in rows),
        splits=("train",) * len(rows),
        experts=EXPERTS,
        scores=scores,
        cost_usd=unknown,
        output_tokens=unknown,
        latency_ms=unknown,
        metric="probe",
        source="test",
    )


@pytest.fixture
def request_(tmp_path):
    config = tmp_path / "experts.yaml"
    config.write_text(yaml.dump(CONFIG))
    write_outcomes(outcome_table(), tmp_path / "outcomes")
    registry = Registry(tmp_path / "routers")
    first = first_router(registry.root, config, tmp_path / "outcomes", None, None, None, seed=0, now=NOW)
    registry.promote(first.manifest.version, NOW)
    url = f"sqlite:///{tmp_path / 'coe.db'}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE decisions (decision_id TEXT PRIMARY KEY, at REAL, category TEXT, record TEXT)")
        )
        connection.execute(text("CREATE TABLE feedback (decision_id TEXT, kind TEXT, value REAL)"))
    engine.dispose()
    return RetrainRequest(config, registry.root, tmp_path / "outcomes", url)


def log_answers(request, expert_reward, *, n=300, category="sql", propensity=0.5, **changes) -> None:
    """Logs n answered queries of a category, spread over the experts, each with a thumb of the expert's rate."""
    rng = np.random.default_rng(7)
    engine = create_engine(request.database_url)
    with engine.begin() as connection:
        for i in range(n):
            expert = EXPERTS[int(rng.random() < 0.5)]
            decision = RoutingDecision(
                expert=expert,
                category=category,
                confidence=0.9,
                is_fallback=False,
                reason=DecisionReason.EXPLORED,
                likely_category=category,
                uncertainty=0.1,
                eligible=EXPERTS,
                eligible_probs=(0.5, 0.5),
                predicted_quality=(0.5, 0.3),
                propensity=propensity,
                router_version="v",
            )
            fields = {
                "decision_id": f"{category}-{i}",
                "request_id": "r",
                "replica": "a",
                "seq": i,
                "at": 1000.0 + i,
                "requested_model": "auto",
                "state": TerminalState.ANSWERED,
                "decision": decision,
                "served_expert": expert,
                "status": 200,
                "latency_ms": 5.0,
                "text": f"write a sql query number {i} that selects rows from a table",
            }
            record = DecisionRecord.model_validate(fields | changes)
            connection.execute(
                text("INSERT INTO decisions VALUES (:id, :at, :category, :record)"),
                {"id": record.decision_id, "at": record.at, "category": category, "record": record.model_dump_json()},
            )
            thumb = float(rng.random() < expert_reward[expert])
            connection.execute(
                text("INSERT INTO feedback VALUES (:id, 'thumb', :value)"), {"id": record.decision_id, "value": thumb}
            )
    engine.dispose()


def test_feedback_moves_the_map_and_the_candidate_is_promoted(request_):
    before = Registry(request_.routers).live()
    log_answers(request_, {"left": 0.2, "right": 0.9})
    result = run_retrain(request_, now=NOW)
    assert result.gate is not None
    assert result.gate.verdict is Verdict.PROMOTE, result.reason
    assert [(c.category, c.live, c.candidate) for c in result.changes if c.category == "sql"] == [
        ("sql", "left", "right")
    ]
    live = Registry(request_.routers).live()
    assert (live.version, live.history) == (result.candidate, (before.version,))
    manifest = load_artifact(request_.routers / live.version).manifest
    assert manifest.parents == (before.version,)
    assert "log" in manifest.data_fingerprints


def test_feedback_that_confirms_the_map_changes_no_category(request_):
    log_answers(request_, {"left": 0.9, "right": 0.2})
    result = run_retrain(request_, now=NOW)
    assert not result.changes
    assert result.gate is not None
    assert result.gate.verdict is Verdict.PROMOTE


def test_without_feedback_the_live_router_stays(request_):
    before = Registry(request_.routers).live()
    result = run_retrain(request_, now=NOW)
    assert not result.is_promoted
    assert result.reason.startswith("declined: the log holds no decision with feedback")
    assert Registry(request_.routers).live() == before


def test_a_dry_run_compares_and_promotes_nothing(request_):
    before = Registry(request_.routers).live()
    log_answers(request_, {"left": 0.2, "right": 0.9})
    result = run_retrain(replace(request_, is_dry_run=True), now=NOW)
    assert result.gate is not None
    assert result.gate.verdict is Verdict.PROMOTE
    assert not result.is_promoted
    assert Registry(request_.routers).live() == before


def test_other_labelled_queries_than_the_seed_set_can_be_named(request_, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    line = '{"text": "show me %d rows", "style": "terse", "language": "en"}\n'
    (folder / "sql.jsonl").write_text("".join(line % i for i in range(30)))
    log_answers(request_, {"left": 0.2, "right": 0.9})
    with pytest.raises(DataError, match="no labelled query for category facts"):
        run_retrain(replace(request_, queries=folder), now=NOW)


def test_held_out_answers_are_never_learned_from(request_):
    log_answers(request_, {"left": 0.2, "right": 0.9})
    log = read_log(request_.database_url)
    held_out = [answer for answer in log.used if not in_training(answer)]
    assert 0.1 < len(held_out) / len(log.used) < 0.3
    assert {answer.text for answer in held_out}.isdisjoint({a.text for a in log.used if in_training(a)})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": TerminalState.CLIENT_GONE}, "not answered (client_gone)"),
        ({"served_expert": "nobody"}, "another expert answered after a failure"),
        ({"decision": None, "state": TerminalState.REJECTED}, "rejected before routing"),
    ],
)
def test_rows_that_teach_nothing_are_counted_with_their_reason(request_, changes, reason):
    log_answers(request_, {"left": 0.5, "right": 0.5}, n=4, **changes)
    log = read_log(request_.database_url)
    assert log.used == ()
    assert log.dropped == {reason: 4}


def test_the_log_is_read_in_pages_without_loss(request_, monkeypatch):
    log_answers(request_, {"left": 0.5, "right": 0.5}, n=25)
    monkeypatch.setattr("training.datasets.decision_log.PAGE_ROWS", 4)
    log = read_log(request_.database_url)
    assert (log.n_rows, len({a.decision_id for a in log.used})) == (25, 25)
    assert read_log(request_.database_url, since=1020.0).n_rows == 5


def test_missing_parts_are_named(request_, tmp_path):
    with pytest.raises(DataError, match="the decision log cannot be read"):
        read_log(f"sqlite:///{tmp_path / 'empty.db'}")
    (request_.routers / "live.json").unlink()
    with pytest.raises(ArtifactError, match="no live router to improve on"):
        run_retrain(request_, now=NOW)
