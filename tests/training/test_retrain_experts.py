"""`coe retrain` about experts that are new, that were probed, and that no table grades any more."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from coe.base.errors import DataError
from coe.decision_log.database import Database
from coe.decision_log.feedback_types import JudgedAnswer
from coe.fleet.router_registry import Registry
from coe.router.build import load_router
from coe.router.config.composition import load_config
from coe.router.model_files.artifact import load_artifact
from coe.router.types import Query
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.learned_map import explored_shares, traffic_shift
from coe.training.onboarding import onboard
from coe.training.retrain import MIN_TRAFFIC_SHIFT, run_retrain
from coe.training.summary import print_retrain
from tests.training.test_retrain import CONFIG, EXPERTS, NOW, log_answers, outcome_table, request_

__all__ = ["request_"]


def test_a_new_expert_that_nobody_tried_joins_to_be_explored(request_, tmp_path):
    """Its grades are what is known of it, so it challenges where they have it ahead."""
    config = CONFIG | {
        "experts": CONFIG["experts"] | {"third": {"engine": "echo", "model": "third", "params_b": 1.0}},
        "policies": {"default": {"exploration": 0.02}},
    }
    request_.config.write_text(yaml.dump(config))
    table = outcome_table()
    better = (np.arange(60) % 5 < 3).astype(np.float32)
    unknown = np.full((60, 3), np.nan, np.float32)
    wider = replace(
        table,
        experts=(*EXPERTS, "third"),
        scores=np.column_stack([table.scores, better]),
        cost_usd=unknown,
        output_tokens=unknown,
        latency_ms=unknown,
    )
    write_outcomes(wider, tmp_path / "wider")
    log_answers(request_, {"left": 0.6, "right": 0.4})
    live = Registry(request_.routers).live().version
    before = load_router(load_config(request_.config), request_.routers / live)
    strict = replace(request_, outcomes=tmp_path / "wider")
    result = run_retrain(strict, now=NOW)
    assert not result.is_promoted
    assert "third" in {one.expert for one in result.challengers}
    router = load_router(load_config(request_.config), request_.routers / Registry(request_.routers).live().version)
    assert router.expert_of() == before.expert_of()
    decision = router.decide(Query("q", "select rows"), rng=np.random.default_rng(0))
    assert decision.eligible_probs[decision.eligible.index("third")] > 0
    assert decision.eligible_probs[decision.eligible.index("third")] > 0.5
    again = run_retrain(strict, now=NOW)
    assert again.candidate == result.candidate


def test_a_live_router_that_stays_explores_by_the_newest_measurements(request_):
    """Rewards of both experts are alike now, so who is better is in doubt; the map stays."""
    request_.config.write_text(yaml.dump(CONFIG | {"policies": {"default": {"exploration": 0.02}}}))
    registry = Registry(request_.routers)
    config, version = load_config(request_.config), registry.live().version
    before = load_router(config, request_.routers / version)
    log_answers(request_, {"left": 0.55, "right": 0.55}, n=500)
    result = run_retrain(request_, now=NOW)
    assert not result.is_promoted
    live = registry.live().version
    after = load_router(config, request_.routers / live)
    assert live != version
    assert after.expert_of() == before.expert_of()
    made, old = (load_artifact(request_.routers / name).manifest for name in (live, version))
    assert (made.parents, made.experts) == ((version,), old.experts)
    assert traffic_shift(before, after) > MIN_TRAFFIC_SHIFT
    run_retrain(request_, now=NOW)  # nothing new
    assert registry.live().version == live
    put_on_the_map(request_, 0.6)
    probed = load_router(load_config(request_.config), request_.routers / registry.live().version)
    shares = [row.get("tutor", 0.0) for row in explored_shares(probed, "default")]
    assert min(shares) > 0.01


def add_expert(request, name):
    config = yaml.safe_load(request.config.read_text())
    config["experts"][name] = {"engine": "echo", "model": name, "params_b": 1.0}
    request.config.write_text(yaml.dump(config))


def one_expert(score, name="tutor"):
    table = outcome_table()
    unknown = table.cost_usd[:, :1]
    scores = np.full((len(table.texts), 1), score, np.float32)
    fields = {"experts": (name,), "scores": scores}
    return replace(table, **fields, cost_usd=unknown, output_tokens=unknown, latency_ms=unknown)


def put_on_the_map(request, score, now=NOW):
    """`tutor` as `coe experts probe tutor --promote` puts it there; its probes are written to no folder."""
    add_expert(request, "tutor")
    registry, probed = Registry(request.routers), one_expert(score)
    live = registry.folder(registry.live().version)
    luck = np.zeros(len(load_artifact(live).manifest.categories) + 1)
    found = onboard(load_config(request.config), live, "tutor", probed, outcome_table(), now=now, luck=luck)
    registry.promote(found.artifact.manifest.version, now)
    return found


def test_an_expert_of_the_live_map_that_no_table_grades_ends_the_round(request_, tmp_path):
    shutil.rmtree(tmp_path / "outcomes")
    write_outcomes(one_expert(0.3, "right"), tmp_path / "outcomes")
    log_answers(request_, {"left": 0.9, "right": 0.2})
    with pytest.raises(DataError, match="no table grades left, known to the live router"):
        run_retrain(request_, now=NOW)


def test_an_expert_that_experts_yaml_no_longer_has_goes(request_):
    put_on_the_map(request_, 0.2)
    request_.config.write_text(yaml.dump(CONFIG))
    log_answers(request_, {"left": 0.2, "right": 0.9})
    result = run_retrain(request_, now=NOW)
    assert result.is_promoted, result.reason
    assert "tutor" not in load_router(load_config(request_.config), request_.routers / result.candidate).experts


@pytest.mark.parametrize("preferred", [None, 1.0, 0.0])
def test_what_a_judge_compared_names_challengers(request_, capsys, preferred):
    """People like both as well; the judge prefers right, or left, each time."""
    log_answers(request_, {"left": 0.5, "right": 0.5}, n=300, start=2000.0, predicted=(0.6, 0.4))
    store = Database(request_.database_url)
    served = {f"sql-{i}": store.get_decision(f"sql-{i}").served_expert for i in range(300)}
    grade = {name: 0.2 + 0.6 * kept.value for name in served for kept in store.get_feedback(name)}
    for name, expert in served.items() if preferred is not None else ():
        other = "left" if expert == "right" else "right"
        of = JudgedAnswer(decision_id=name, judge="wise", rubric="r", expert=expert, value=grade[name], at=1.0)
        value = preferred if expert == "right" else 1.0 - preferred
        store.put_judgements([of, of.model_copy(update={"other": other, "value": value})])
    with store.transaction("name who served, as gateways do") as connection:
        connection.exec_driver_sql("UPDATE decisions SET expert = json_extract(record, '$.served_expert')")
    store.close()
    result = run_retrain(request_, now=NOW)
    print_retrain(result)
    out = capsys.readouterr().out
    assert ("and 300 pairs of answers that a judge compared" in out) is (preferred is not None)
    is_named = ("sql", "right") in {(one.category, one.expert) for one in result.challengers}
    assert is_named is (preferred == 1.0), result.reason
