"""`coe retrain` on a simulated log in SQLite: what it learns, holds out, promotes and declines."""

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
from coe.router.artifact import load_artifact
from coe.router.build import load_router
from coe.router.config import load_config
from coe.router.live_pointer import Trial
from coe.router.types import DecisionReason, Metric, Query, Verdict
from coe.training.candidate import without_passengers
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.fit_inputs import RetrainRequest, TrainRequest, fit_configured, labelled_queries
from coe.training.fit_options import FitOptions
from coe.training.gate import Comparison, GateResult, judge
from coe.training.log_answers import choices_on
from coe.training.log_comparison import NewExperts
from coe.training.log_table import FOLDS, read_log_table
from coe.training.retrain import run_retrain
from coe.training.summary import print_retrain, retrain_json
from coe.training.types import OutcomeTable, split_of
from tests.logged import answered, decision_of
from tests.outcome_tables import scored_table
from tests.training.trained_folder import put_first_router, temporary_folder

NOW = datetime(2026, 1, 2, tzinfo=UTC)
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
    put_first_router(folder / "experts.yaml", folder / "outcomes", folder / "routers", NOW)
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
    **changes,
) -> None:
    """Logs n answered queries of a category, spread over the experts, each with a thumb of the expert's rate."""
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
                predicted_quality=(0.5, 0.3)[: len(possible)],
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


def test_feedback_moves_the_map_and_the_candidate_is_promoted(request_):
    before = Registry(request_.routers).live()
    log_answers(request_, {"left": 0.2, "right": 0.9})
    result = run_retrain(request_, now=NOW)
    assert result.gate.verdict is Verdict.PROMOTE, result.reason
    assert [(c.category, c.live, c.candidate) for c in result.changes if c.category == "sql"] == [
        ("sql", "left", "right")
    ]
    live = Registry(request_.routers).live()
    assert (live.version, live.history) == (result.candidate, (before.version,))
    manifest = load_artifact(request_.routers / live.version).manifest
    assert manifest.parents == (before.version,)
    assert "log" in manifest.data_fingerprints


def another_router(request):
    """The version of a router with another scorer."""
    made = fit_configured(
        request.routers,
        TrainRequest(request.config, request.outcomes, options=FitOptions(scorer="soft_map", seed=1)),
        now=NOW,
    )
    return made.manifest.version


@pytest.mark.parametrize("budget", [0.0, 0.005])
def test_feedback_that_confirms_the_map_changes_nothing_round_after_round(request_, budget):
    """No version is made, none is promoted, and the trial goes on."""
    config = CONFIG | {"policies": {"default": {"exploration": budget}}}
    request_.config.write_text(yaml.dump(config))
    registry = Registry(request_.routers)
    other = another_router(request_)
    before = registry.try_out(Trial(version=other, share=0.1, started_at=1e9))
    versions = registry.versions()
    for number in range(3):
        log_answers(request_, {"left": 0.9, "right": 0.2}, n=90, prefix=f"round{number}-", start=1000.0 + 100 * number)
        result = run_retrain(request_, now=NOW)
        assert result.reason == (
            "decline: changes nothing: it decides like the live router on 120 labelled, 60 graded, "
            f"{90 * (number + 1)} logged queries"
        )
        assert retrain_json(result)["verdict"] == "decline"
    assert registry.live() == before
    assert registry.versions() == versions


def test_a_candidate_that_differs_on_logged_queries_alone_is_judged(request_, monkeypatch):
    """Of a learned scorer that may be, though all grades are alike."""

    def other_on_the_log(router, asked, experts):
        found = choices_on(router, asked, experts)
        return (
            found
            if router.version == Registry(request_.routers).live().version
            else replace(found, chosen=1 - found.chosen)
        )

    monkeypatch.setattr("coe.training.log_comparison.choices_on", other_on_the_log)
    log_answers(request_, {"left": 0.9, "right": 0.2})
    assert run_retrain(request_, now=NOW).gate.verdict is Verdict.NEED_MORE


def test_a_candidate_that_is_better_ends_a_trial_of_another(request_):
    log_answers(request_, {"left": 0.2, "right": 0.9})
    registry = Registry(request_.routers)
    other = another_router(request_)
    registry.try_out(Trial(version=other, share=0.1, started_at=1e9))
    result = run_retrain(request_, now=NOW)
    assert result.is_promoted, result.reason
    assert registry.live().trial is None


def test_without_feedback_the_live_router_stays(request_):
    before = Registry(request_.routers).live()
    result = run_retrain(request_, now=NOW)
    assert not result.is_promoted
    assert result.reason.startswith("decline: changes nothing")
    assert Registry(request_.routers).live() == before


def test_a_dry_run_compares_and_promotes_nothing(request_):
    before = Registry(request_.routers).live()
    log_answers(request_, {"left": 0.2, "right": 0.9})
    result = run_retrain(replace(request_, is_dry_run=True), now=NOW)
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


def test_a_question_is_of_one_part_however_it_is_asked(request_):
    log_answers(request_, {"left": 0.2, "right": 0.9})
    log_answers(request_, {"left": 0.2, "right": 0.9}, prefix="again", shout=True)
    log = read_log_table(request_.database_url)
    assert np.bincount(log.fold, minlength=FOLDS).min() > 30
    side = dict(zip(log.ids.tolist(), log.fold.tolist(), strict=True))
    assert all(side[b"sql-%d" % i] == side[b"again-%d" % i] for i in range(300))


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
    assert not run_retrain(replace(request_, is_dry_run=True), now=NOW).changes
    failed = {"state": TerminalState.UPSTREAM_ERROR, "served_expert": None, "status": 502}
    log_answers(request_, rates, n=170, prefix="failed", only="left", start=1000.5, **failed)
    with create_engine(request_.database_url).begin() as connection:
        connection.execute(text("DELETE FROM feedback WHERE decision_id LIKE 'failed%'"))
    result = run_retrain(request_, now=NOW)
    assert result.log.is_failure.sum() == 170
    assert result.quality_changes == ()
    assert [(c.category, c.live, c.candidate) for c in result.changes] == [("sql", "left", "right")]
    assert result.is_promoted, result.reason


def test_the_log_is_read_in_pages_without_loss(request_, monkeypatch):
    log_answers(request_, {"left": 0.5, "right": 0.5}, n=25)
    monkeypatch.setattr("coe.decision_log.read.PAGE_ROWS", 4)
    log = read_log_table(request_.database_url)
    assert (log.n_rows, len(set(log.ids.tolist()))) == (25, 25)
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


def test_the_result_says_what_was_used_and_every_comparison(request_):
    log_answers(request_, {"left": 0.2, "right": 0.9})
    log_answers(request_, {"left": 0.5, "right": 0.5}, n=10, prefix="gone", state=TerminalState.CLIENT_GONE)
    result = run_retrain(request_, now=NOW)
    assert (result.log.n_rows, result.n_learned) == (310, 300)
    assert result.n_judged == result.n_learned
    assert result.log.dropped == {"not answered (client_gone)": 10}
    shown = retrain_json(result)
    assert list(shown["comparisons"]) == [
        "category accuracy",
        "score on graded outcomes",
        "graded outcomes, cross-fitted",
        "reward on the log",
    ]
    assert shown["comparisons"]["reward on the log"]["candidate"]["value"] == pytest.approx(0.9, abs=0.15)


def test_an_expert_that_changed_is_judged_by_what_it_does_now(request_):
    """`left` was graded and rated best, then its provider changed it: old grades and ratings must not keep it."""
    log_answers(request_, {"left": 0.9, "right": 0.6}, n=1500)
    first = run_retrain(request_, now=NOW)
    assert first.quality_changes == ()
    log_answers(request_, {"left": 0.1, "right": 0.6}, n=400, prefix="later", start=90000.0)
    result = run_retrain(request_, now=NOW)
    assert [(c.expert, c.category) for c in result.quality_changes] == [("left", "sql")]
    assert result.quality_changes[0].at == pytest.approx(90000.0, abs=60)
    assert (result.n_outdated > 600, result.n_outdated_grades) == (True, 20)
    assert result.is_promoted, result.reason
    assert [(c.category, c.candidate) for c in result.changes] == [("sql", "right")]


@pytest.mark.parametrize(("price", "is_taken"), [(0.0, True), (1e4, False)])
def test_the_next_best_takes_over_from_an_expert_that_fell(request_, price, is_taken):
    """`right` was not tried since, so the gate cannot judge it; what was known of it holds. It may cost too much."""
    config = yaml.safe_load(request_.config.read_text())
    config["experts"]["right"] |= {"price": {"input": price}}
    config["experts"]["left"] |= {"price": {"input": 1.0}}
    request_.config.write_text(yaml.dump(config))
    log_answers(request_, {"left": 0.9, "right": 0.6}, n=600)
    always_left = {"propensity": 1.0, "possible": (1.0, 0.0), "only": "left"}
    log_answers(request_, {"left": 0.1}, n=100, prefix="later", start=90000.0, **always_left)
    result = run_retrain(request_, now=NOW)
    assert result.gate.verdict is not Verdict.PROMOTE
    assert ("right takes over sql from left" in result.reason) is is_taken
    assert not is_taken or ("more decisions" not in result.reason and result.gate.more_decisions is None)
    live = load_router(load_config(request_.config), request_.routers / Registry(request_.routers).live().version)
    assert live.expert_of() == {"facts": "left", "sql": "right" if is_taken else "left", "general": "left"}
    assert "takes over" not in run_retrain(request_, now=NOW).reason  # it did


@pytest.mark.parametrize(("possible", "is_taken"), [((1.0,), True), ((1.0, 0.0), False)])
def test_a_newcomer_takes_what_its_own_answers_show(request_, monkeypatch, possible, is_taken):
    """Whatever becomes of the whole candidate; an expert that was known all along waits for the gate, also one that
    had no chance at first."""

    def judge_nothing(*compared, **options):
        return replace(judge(*compared, **options), verdict=Verdict.NEED_MORE, more_decisions=10_238)

    monkeypatch.setattr("coe.training.candidate.judge", judge_nothing)
    log_answers(request_, {"left": 0.4}, n=100, only="left", possible=possible, propensity=possible[0])
    log_answers(request_, {"left": 0.4, "right": 0.9}, n=300, prefix="later", start=2000.0)
    result = run_retrain(request_, now=NOW)
    assert ("right takes over sql from left: reward on the log" in result.reason) is is_taken
    assert ("10,238 more decisions" in result.reason) is not is_taken
    assert result.gate.more_decisions == (None if is_taken else 10_238)
    live = load_router(load_config(request_.config), request_.routers / Registry(request_.routers).live().version)
    assert live.expert_of() == {"facts": "left", "sql": "right" if is_taken else "left", "general": "left"}


@pytest.mark.parametrize(("log_e", "verdict"), [(1.7, Verdict.PROMOTE), (1.5, Verdict.NEED_MORE)])
def test_what_else_a_candidate_gains_does_not_carry_a_newcomer(log_e, verdict):
    unknown = Metric(value=-0.01)
    gain = Comparison("reward on the log", unknown, unknown, unknown, 50.0, log_e=log_e, level=0.1)
    result = without_passengers(GateResult(Verdict.PROMOTE, "better", ()), NewExperts(("right",), gain))
    assert result.verdict is verdict
    assert ("right" in result.reason) is (verdict is Verdict.NEED_MORE)
    assert result.reason.endswith("better" if verdict is Verdict.PROMOTE else "0.5 times that would be enough here")


def test_a_category_that_nobody_was_graded_in_is_given_by_what_the_log_says(request_):
    """Too few answers for the gate, and nobody to be defended against a candidate. It is then explored by the chances
    of being best, not by what the budget allows."""
    table, config = outcome_table(), CONFIG | {"policies": {"default": {"exploration": 0.005}}}
    request_.config.write_text(yaml.dump(config))
    write_outcomes(table.rows(np.array(table.categories) != "sql"), request_.outcomes)
    put_first_router(request_.config, request_.outcomes, request_.routers, NOW)
    log_answers(request_, {"left": 0.3, "right": 0.7}, n=40)
    result = run_retrain(request_, now=NOW)
    assert not result.is_promoted, result.reason
    assert "right takes over sql from left, where no answer is graded: +" in result.reason
    live = load_router(load_config(request_.config), request_.routers / Registry(request_.routers).live().version)
    assert live.expert_of()["sql"] == "right"
    explores = live.policy("default").exploration
    assert explores.guessed == {live.categories.index("sql")}
    assert explores.loss - explores.unbounded <= 0.005
    assert explores.unbounded > 0


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


def test_without_exploration_a_change_of_expert_is_not_concluded_from_the_log(request_):
    """The log always chose `left`, so nothing in it says what `right` would have earned."""
    always_left = {"propensity": 1.0, "possible": (1.0, 0.0), "only": "left"}
    log_answers(request_, {"left": 0.9}, category="facts", **always_left)  # so the level does not explain the low marks
    log_answers(request_, {"left": 0.02}, **always_left)
    result = run_retrain(request_, now=NOW)
    assert [(c.category, c.candidate) for c in result.changes if c.category == "sql"] == [("sql", "right")]
    assert not result.is_promoted
    assert "their new expert was all but never tried there" in result.reason


def test_a_learned_scorer_is_fitted_on_the_log_too(request_, tmp_path):
    config = dict(CONFIG, router=CONFIG["router"] | {"scorer": {"kind": "soft_map"}})
    request_.config.write_text(yaml.dump(config))
    put_first_router(request_.config, request_.outcomes, request_.routers, NOW)
    log_answers(request_, {"left": 0.2, "right": 0.9}, n=900)
    result = run_retrain(request_, now=NOW)
    assert result.is_promoted, result.reason
    artifact = load_artifact(request_.routers / result.candidate)
    assert artifact.manifest.scorer.kind == "soft_map"
    assert len(artifact.part("choice")["sample"]) == 60 + result.n_learned
    router = load_router(load_config(request_.config), request_.routers / result.candidate)
    query = Query("q", "write a sql query number 7 that selects rows from a table")
    assert router.decide(query, rng=np.random.default_rng(0)).expert == "right"


@pytest.mark.parametrize("kind", ["soft_map"])
def test_a_router_with_a_learned_scorer_may_stay_live(request_, kind):
    config = dict(CONFIG, router=CONFIG["router"] | {"scorer": {"kind": kind}})
    request_.config.write_text(yaml.dump(config))
    put_first_router(request_.config, request_.outcomes, request_.routers, NOW)
    log_answers(request_, {"left": 0.9, "right": 0.85}, n=60)
    result = run_retrain(request_, now=NOW)
    assert not result.is_promoted, result.reason
    assert Registry(request_.routers).live().version == result.live


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
    assert result.reason == f"declined: {other.manifest.version} became live during the comparison"
    assert registry.live().version == other.manifest.version


def test_category_accuracy_is_judged_on_the_labels_that_were_held_out(request_):
    log_answers(request_, {"left": 0.2, "right": 0.9})
    result = run_retrain(request_, now=NOW)
    asked = labelled_queries(load_config(request_.config), seed_folder())
    held_out = [query for query in asked if split_of(query.text) == "test"]
    assert 0 < len(held_out) < len(asked) / 2
    accuracy = result.gate.comparisons[0]
    assert (accuracy.name, accuracy.difference.n) == ("category accuracy", len(held_out))
