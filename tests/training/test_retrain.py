"""`coe retrain` on a simulated log in SQLite: what it learns, moves and leaves."""

import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from sqlalchemy import create_engine, text

from coe.base.errors import ArtifactError, DataError
from coe.base.shipped import seed_folder
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.fleet.router_registry import Registry
from coe.router.build import load_router
from coe.router.config.composition import load_config
from coe.router.live_pointer import Trial
from coe.router.model_files.artifact import load_artifact
from coe.router.types import DecisionReason, Verdict
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.fit_inputs import RetrainRequest, TrainRequest, fit_configured, labelled_queries
from coe.training.fit_options import FitOptions
from coe.training.log_table import read_log_table
from coe.training.retrain import run_retrain
from coe.training.summary import print_retrain, retrain_json
from coe.training.types import OutcomeTable, split_of
from tests.logged import answered, decision_of
from tests.outcome_tables import scored_table
from tests.training.trained_folder import put_first_router, temporary_folder

BORN, NOW = datetime.fromtimestamp(0, UTC), datetime(2026, 1, 2, tzinfo=UTC)
EXPERTS = ("left", "right")
CONFIG = {
    "categories": {"facts": "questions", "sql": "queries", "general": "the rest"},
    "experts": {name: {"engine": "echo", "model": name, "params_b": 1.0} for name in EXPERTS},
    "router": {
        "encoder": {"kind": "hashing"},
        "classifier": {"kind": "logistic", "inverse_l2": 10.0},
        "scorer": {"kind": "map"},
        "alpha": 0.5,
    },
    "policies": {"default": {"exploration": 0.002}},
}


def outcome_table() -> OutcomeTable:
    """Twenty graded prompts a category: `left` is a little better everywhere, and neither is good."""
    rows = [(category, i) for category in ("facts", "sql", "general") for i in range(20)]
    scores = [[float(i % 2 == 0), float(i % 3 == 0)] for _, i in rows]
    texts = tuple(f"probe number {i} of {c}" for c, i in rows)
    return scored_table(scores, [c for c, _ in rows], EXPERTS, texts=texts)


@cache
def first_round() -> Path:
    """experts.yaml, grades, the first router and an empty log, which tests copy."""
    folder = temporary_folder()
    (folder / "experts.yaml").write_text(yaml.dump(CONFIG))
    write_outcomes(outcome_table(), folder / "outcomes")
    put_first_router(folder / "experts.yaml", folder / "outcomes", folder / "routers", BORN)
    Database(f"sqlite:///{folder / 'coe.db'}").close()
    return folder


@pytest.fixture
def request_(tmp_path):
    return retrainable(tmp_path)


def retrainable(folder: Path) -> RetrainRequest:
    """A round of learning on what is in `folder` then."""
    shutil.copytree(first_round(), folder, dirs_exist_ok=True)
    return RetrainRequest(
        folder / "experts.yaml", folder / "routers", folder / "outcomes", f"sqlite:///{folder / 'coe.db'}"
    )


def log_answers(
    request,
    expert_reward,
    *,
    n=300,
    category="sql",
    propensity=0.5,
    prefix=None,
    start=1000.0,
    shout=False,
    only=None,
    possible=(0.5, 0.5),
    predicted=(0.4, 0.6),
    **changes,
) -> None:
    """Logs n answered queries of a category that `left` serves and `right` challenges, spread over the experts, each
    with a thumb of the expert's rate."""
    rng = np.random.default_rng(7)
    prefix = prefix or category
    engine = create_engine(request.database_url)
    with engine.begin() as connection:
        for i in range(n):
            expert = only or EXPERTS[int(rng.random() < 0.5)]
            decision = decision_of(
                expert,
                category,
                reason=DecisionReason.EXPLORED,
                eligible=EXPERTS[: len(possible)],
                eligible_probs=possible,
                ranking=EXPERTS[: len(possible)],
                predicted_quality=predicted[: len(possible)],
                propensity=propensity,
            )
            asked = f"write a {category} query number {i} that selects rows from a table"
            fields = {"replica": "a", "at": start + i, "latency_ms": 5.0, "text": asked.upper() if shout else asked}
            record = answered(f"{prefix}-{i}", i, decision, **(fields | changes))
            connection.execute(
                text(
                    "INSERT INTO decisions (decision_id, at, replica, seq, state, category, is_probe, tenant, record) "
                    "VALUES (:id, :at, 'a', 0, 'answered', :category, false, '', :record)"
                ),
                {"id": record.decision_id, "at": record.at, "category": category, "record": record.model_dump_json()},
            )
            thumb = float(rng.random() < expert_reward[expert])
            connection.execute(
                text(
                    "INSERT INTO feedback (decision_id, kind, value, at, key_id) VALUES (:id, 'thumb', :value, 0, '')"
                ),
                {"id": record.decision_id, "value": thumb},
            )
    engine.dispose()


def live_map(request):
    """Who serves each category now."""
    pointer = Registry(request.routers).live()
    return load_router(load_config(request.config), request.routers / pointer.version).expert_of()


def test_a_challenger_takes_over_what_its_answers_win_and_bets_begin_anew(request_):
    before = Registry(request_.routers).live()
    log_answers(request_, {"left": 0.2, "right": 0.9})
    result = run_retrain(request_, now=NOW)
    assert (result.verdict, result.is_promoted, result.since) == (Verdict.PROMOTE, True, 0.0)
    assert result.n_bets == 300
    assert result.capital > 1000
    assert [(c.category, c.live, c.candidate) for c in result.moves] == [("sql", "left", "right")], result.reason
    assert result.reason.startswith("promote: right takes over sql from left: the evidence of 300 bets is ")
    live = Registry(request_.routers).live()
    assert (live.version, live.history) == (result.candidate, (before.version,))
    assert load_artifact(request_.routers / live.version).manifest.parents == (before.version,)
    assert live_map(request_) == {"facts": "left", "sql": "right", "general": "left"}
    again = run_retrain(request_, now=NOW)
    assert (again.n_bets, again.capital, again.since) == (0, 1.0, NOW.timestamp())
    assert again.progress.began == 0.0
    assert again.progress.over_first.interval.low > 0.1
    assert "over the first map" in again.progress.summary


@pytest.mark.parametrize("predicted", [(0.6, 0.4), (0.5, 0.5)])
def test_who_was_not_ahead_when_it_answered_is_not_bet_on(request_, predicted):
    log_answers(request_, {"left": 0.2, "right": 0.9}, predicted=predicted)
    result = run_retrain(request_, now=NOW)
    assert (result.capital, result.moves) == (1.0, ())
    assert [(one.category, one.expert, one.serves) for one in result.challengers if one.category == "sql"] == [
        ("sql", "right", "left")
    ]
    policy = load_router(load_config(request_.config), request_.routers / result.candidate).policy("default")
    assert policy.exploration.shares(1, np.array([0.0, 1.0]), 0, [1])[1] == pytest.approx(0.8)


def another_router(request):
    """The version of a router with another scorer."""
    made = fit_configured(
        request.routers,
        TrainRequest(request.config, request.outcomes, options=FitOptions(scorer="soft_map", seed=1)),
        now=NOW,
    )
    return made.manifest.version


def test_feedback_that_confirms_the_map_changes_nothing_round_after_round(request_):
    """No version is made, none is promoted, and the trial goes on."""
    config = CONFIG | {"policies": {"default": {"exploration": 0.0}}}
    request_.config.write_text(yaml.dump(config))
    registry = Registry(request_.routers)
    other = another_router(request_)
    before = registry.try_out(Trial(version=other, share=0.1, started_at=1e9))
    versions = registry.versions()
    for number in range(2):
        log_answers(request_, {"left": 0.9, "right": 0.2}, n=90, prefix=f"round{number}-", start=1000.0 + 100 * number)
        result = run_retrain(request_, now=NOW)
        assert result.reason.startswith("decline: changes nothing: no expert looks better than the serving one")
        assert "exploration is off" in result.reason
        assert retrain_json(result)["verdict"] == "decline"
    assert registry.live() == before
    assert registry.versions() == versions


def test_a_move_ends_a_trial_and_new_challengers_wait_for_its_end(request_):
    registry = Registry(request_.routers)
    other = another_router(request_)
    before = registry.try_out(Trial(version=other, share=0.1, started_at=1e9))
    log_answers(request_, {"left": 0.2, "right": 0.9}, n=60, predicted=(0.6, 0.4))
    result = run_retrain(request_, now=NOW)
    assert (result.verdict, result.candidate) == (Verdict.NEED_MORE, before.version)
    assert registry.live() == before
    log_answers(request_, {"left": 0.2, "right": 0.9}, prefix="later")
    assert run_retrain(request_, now=NOW).is_promoted
    assert registry.live().trial is None


def test_without_feedback_the_live_router_stays(request_):
    before = Registry(request_.routers).live()
    result = run_retrain(request_, now=NOW)
    assert not result.is_promoted
    assert result.reason.startswith("decline: changes nothing")
    assert "no answer has feedback yet" in result.reason
    assert Registry(request_.routers).live() == before


def test_a_dry_run_says_what_would_move_and_moves_nothing(request_):
    before = Registry(request_.routers).live()
    log_answers(request_, {"left": 0.2, "right": 0.9})
    result = run_retrain(replace(request_, is_dry_run=True), now=NOW)
    assert result.verdict is Verdict.PROMOTE
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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": TerminalState.CLIENT_GONE}, "not answered (client_gone)"),
        ({"decision": None, "state": TerminalState.REJECTED}, "rejected before routing"),
    ],
)
def test_rows_that_teach_nothing_are_counted_with_their_reason(request_, changes, reason):
    log_answers(request_, {"left": 0.5, "right": 0.5}, n=4, **changes)
    log = read_log_table(request_.database_url)
    assert len(log) == 0
    assert log.dropped == {reason: 4}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"policy": "small"}, "policy 'small' is not in experts.yaml"),
        ({"expert": "third", "eligible": (*EXPERTS, "third")}, "expert 'third' is not in experts.yaml"),
        ({"category": "poems"}, "category 'poems' is not in experts.yaml"),
    ],
)
def test_rows_of_what_experts_yaml_no_longer_has_are_left_out_and_counted(request_, capsys, change, reason):
    log_answers(request_, {"left": 0.2, "right": 0.9})
    engine = create_engine(request_.database_url)
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT decision_id, record FROM decisions WHERE decision_id LIKE '%-1%'")).all()
        for name, stored in rows:
            record = DecisionRecord.model_validate_json(stored)
            decision = record.decision.model_copy(update=change | {"eligible_probs": (0.5, 0.5, 0.0)})
            gone = record.model_copy(update={"decision": decision, "served_expert": decision.expert})
            connection.execute(
                text("UPDATE decisions SET record = :record WHERE decision_id = :id"),
                {"id": name, "record": gone.model_dump_json()},
            )
    engine.dispose()
    result = run_retrain(request_, now=NOW)
    assert (len(rows), result.log.dropped) == (111, {reason: 111})
    assert result.n_learned == 189
    assert result.is_promoted, result.reason
    print_retrain(result)
    assert f"left out: 111 ({reason})" in capsys.readouterr().out


def test_rows_of_a_router_that_is_gone_still_count(request_):
    """Whom it might have chosen, and how probably, is in the row."""
    log_answers(request_, {"left": 0.2, "right": 0.9})
    assert "v" not in {manifest.version for manifest in Registry(request_.routers).versions()}
    result = run_retrain(request_, now=NOW)
    assert result.n_learned == 300


def test_an_expert_that_often_fails_loses_what_it_is_best_at(request_):
    """`left` is liked more where it answers, and fails at more than half of what it is asked."""
    rates = {"left": 0.96, "right": 0.7}
    log_answers(request_, rates, n=300)
    assert not run_retrain(replace(request_, is_dry_run=True), now=NOW).moves
    failed = {"state": TerminalState.UPSTREAM_ERROR, "served_expert": None, "status": 502}
    log_answers(request_, rates, n=300, prefix="failed", only="left", start=1000.5, **failed)
    with create_engine(request_.database_url).begin() as connection:
        connection.execute(text("DELETE FROM feedback WHERE decision_id LIKE 'failed%'"))
    result = run_retrain(request_, now=NOW)
    assert result.log.is_failure.sum() == 300
    assert result.quality_changes == ()
    assert [(c.category, c.live, c.candidate) for c in result.moves] == [("sql", "left", "right")], result.reason
    assert result.is_promoted, result.reason


def test_the_log_is_read_in_pages_without_loss(request_, monkeypatch):
    log_answers(request_, {"left": 0.5, "right": 0.5}, n=25)
    monkeypatch.setattr("coe.decision_log.read.PAGE_ROWS", 4)
    log = read_log_table(request_.database_url)
    assert (log.n_rows, len(set(log.at.tolist()))) == (25, 25)
    assert read_log_table(request_.database_url, since=1020.0).n_rows == 5


def test_missing_parts_are_named(request_, tmp_path):
    with pytest.raises(DataError, match="there is no decision log"):
        read_log_table(f"sqlite:///{tmp_path / 'empty.db'}")
    (request_.routers / "live.json").unlink()
    with pytest.raises(ArtifactError, match="no live router to improve on"):
        run_retrain(request_, now=NOW)


def test_a_changed_encoder_is_refused_before_anything_is_read_or_fitted(request_):
    request_.config.write_text(
        yaml.dump({**CONFIG, "router": {**CONFIG["router"], "encoder": {"kind": "hashing", "dim": 64}}})
    )
    said = []
    with pytest.raises(ArtifactError, match="was trained on encoder hashing"):
        run_retrain(request_, now=NOW, progress=said.append)
    assert said == []


def test_the_result_says_what_was_used(request_, capsys):
    log_answers(request_, {"left": 0.2, "right": 0.9})
    log_answers(request_, {"left": 0.5, "right": 0.5}, n=10, prefix="gone", state=TerminalState.CLIENT_GONE)
    result = run_retrain(request_, now=NOW)
    assert (result.log.n_rows, result.n_learned) == (310, 300)
    assert result.log.dropped == {"not answered (client_gone)": 10}
    shown = retrain_json(result)
    assert (shown["bets"], shown["capital"]) == (300, result.capital)
    assert shown["category_accuracy"]["difference"]["value"] == 0.0
    print_retrain(result)
    assert result.progress.summary in capsys.readouterr().out


def test_an_expert_that_changed_is_judged_by_what_it_does_now(request_):
    """`left` was graded and rated best, then its provider changed it: old grades, ratings and bets must not keep it."""
    log_answers(request_, {"left": 0.9, "right": 0.6}, n=1500, predicted=(0.6, 0.65))
    first = run_retrain(replace(request_, is_dry_run=True), now=NOW)
    assert first.quality_changes == ()
    assert first.capital < 1.0
    log_answers(request_, {"left": 0.1, "right": 0.6}, n=400, prefix="later", start=90000.0)
    result = run_retrain(request_, now=NOW)
    assert [(c.expert, c.category) for c in result.quality_changes] == [("left", "sql")]
    assert result.quality_changes[0].at == pytest.approx(90000.0, abs=60)
    assert (result.n_outdated > 600, result.n_outdated_grades) == (True, 20)
    assert result.n_bets <= 460
    assert [(c.category, c.candidate) for c in result.moves] == [("sql", "right")]


@pytest.mark.parametrize(("price", "is_named"), [(0.0, True), (1e4, False)])
def test_the_next_best_challenges_an_expert_that_fell_unless_it_costs_too_much(request_, price, is_named):
    """`right` was not tried since; what was known of it holds."""
    config = yaml.safe_load(request_.config.read_text())
    config["experts"]["right"] |= {"price": {"input": price}}
    config["experts"]["left"] |= {"price": {"input": 1.0}}
    request_.config.write_text(yaml.dump(config))
    log_answers(request_, {"left": 0.9, "right": 0.6}, n=600, predicted=(0.6, 0.4))
    always_left = {"propensity": 1.0, "possible": (1.0, 0.0), "only": "left"}
    log_answers(request_, {"left": 0.1}, n=100, prefix="later", start=90000.0, **always_left)
    result = run_retrain(request_, now=NOW)
    assert [one.expert for one in result.challengers if one.category == "sql"] == (["right"] if is_named else [])
    assert live_map(request_)["sql"] == "left"


@pytest.mark.parametrize(("price", "is_moved"), [(1.0, True), (3.0, False)])
def test_a_dearer_challenger_has_to_win_more(request_, price, is_moved):
    config = yaml.safe_load(request_.config.read_text())
    for name, rate in (("left", 1.0), ("right", price)):
        config["experts"][name] |= {"price": {"input": rate, "output": rate}}
    request_.config.write_text(yaml.dump(config))
    log_answers(request_, {"left": 0.5, "right": 0.7}, n=600, predicted=(0.4, 0.6))
    result = run_retrain(request_, now=NOW)
    assert bool(result.moves) is is_moved, result.reason


def test_a_category_that_nobody_was_graded_in_is_learned_by_the_same_rule(request_):
    table = outcome_table()
    write_outcomes(table.rows(np.array(table.categories) != "sql"), request_.outcomes)
    put_first_router(request_.config, request_.outcomes, request_.routers, BORN)
    log_answers(request_, {"left": 0.3, "right": 0.7}, n=40, predicted=(0.6, 0.4))
    result = run_retrain(request_, now=NOW)
    assert [one.expert for one in result.challengers if one.category == "sql"] == ["right"]
    log_answers(request_, {"left": 0.3, "right": 0.7}, n=200, start=2000.0, prefix="later")
    assert [(c.category, c.candidate) for c in run_retrain(request_, now=NOW).moves] == [("sql", "right")]


def test_a_replaced_model_starts_a_new_column_of_evidence(request_, capsys):
    """`left` was rated best; then its provider answered with another model, whose first ratings say little."""
    log_answers(request_, {"left": 0.95, "right": 0.6}, n=600, served_model="big-2026-01-01")
    assert run_retrain(request_, now=NOW).log.model_changes == ()
    log_answers(request_, {"left": 0.1, "right": 0.6}, n=30, prefix="later", start=90000.0, served_model="small")
    result = run_retrain(replace(request_, is_dry_run=True), now=NOW)
    found = {c.expert: (c.at >= 90000, c.before, c.after) for c in result.log.model_changes}
    assert found == dict.fromkeys(EXPERTS, (True, "big-2026-01-01", "small"))
    print_retrain(result)
    said = capsys.readouterr().out
    assert "model changed: left is answered by small since 1970-01-02 01:00 UTC, before by big-2026-01-01" in said
    assert result.n_outdated >= 600
    assert result.n_outdated_grades == 0  # the table was written after 1970
    os.utime(request_.outcomes / "scores.parquet", (0, 0))
    assert run_retrain(replace(request_, is_dry_run=True), now=NOW).n_outdated_grades == 120
    asked = replace(request_, since=80000.0)
    assert run_retrain(asked, now=NOW).log.model_changes == ()


def test_a_router_that_decides_by_each_query_is_left_to_train(request_):
    config = dict(CONFIG, router=CONFIG["router"] | {"scorer": {"kind": "soft_map"}})
    request_.config.write_text(yaml.dump(config))
    put_first_router(request_.config, request_.outcomes, request_.routers, BORN)
    log_answers(request_, {"left": 0.2, "right": 0.9}, n=60)
    result = run_retrain(request_, now=NOW)
    assert "scorer 'soft_map' decides by each query" in result.reason
    assert Registry(request_.routers).live().version == result.live == result.candidate


def test_a_router_promoted_during_the_comparison_is_not_overwritten(request_, tmp_path):
    log_answers(request_, {"left": 0.2, "right": 0.9})
    registry = Registry(request_.routers)
    other = fit_configured(
        registry.root, TrainRequest(request_.config, tmp_path / "outcomes", options=FitOptions(seed=5)), now=NOW
    )

    @contextmanager
    def interrupted():
        registry.promote(other.manifest.version, NOW)
        yield

    result = run_retrain(request_, now=NOW, guard=interrupted)
    assert not result.is_promoted
    assert result.reason == f"declined: {other.manifest.version} became live during the round"
    assert registry.live().version == other.manifest.version


def test_category_accuracy_is_judged_on_the_labels_that_were_held_out(request_):
    log_answers(request_, {"left": 0.2, "right": 0.9})
    result = run_retrain(request_, now=NOW)
    asked = labelled_queries(load_config(request_.config), seed_folder())
    held_out = [query for query in asked if split_of(query.text) == "test"]
    assert 0 < len(held_out) < len(asked) / 2
    accuracy = result.stage
    assert (accuracy.difference.n, accuracy.changed_share, accuracy.passes(0.02)) == (len(held_out), 0.0, False)
