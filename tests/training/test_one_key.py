"""`coe retrain` where one key speaks for nearly everybody, where many do, and where there is only one.

The attack: a thousand thumbs, within the cap of an hour, are 91% of all feedback and turn the truth around.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import beta
from sqlalchemy import create_engine, text

from coe.cli.progress import silent
from coe.router.build import configured_router
from coe.router.config.composition import load_config
from coe.router.live_pointer import required_pointer
from coe.router.model_files.artifact import load_artifact
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.fit_inputs import RetrainRequest, read_inputs
from coe.training.retrain import RetrainResult, run_retrain
from tests.training.keyed_log import log_keyed
from tests.training.test_retrain import BORN, CONFIG, NOW, outcome_table, retrainable
from tests.training.trained_folder import put_first_router

TRUTH = {"left": 0.8, "right": 0.3}
LIES = {"left": 0.0, "right": 1.0}
BETTER = {"left": 0.3, "right": 0.8}
"""The live router sends everything to `left`, which its grades say is a little better."""

MANY = tuple(f"key-{i}" for i in range(20))


@pytest.fixture
def request_(tmp_path) -> RetrainRequest:
    return retrainable(tmp_path)


def moves(result: RetrainResult) -> set[str]:
    """Categories that changed hands."""
    return {change.category for change in result.moves}


def attacked(folder: Path, seed: int, style: str) -> RetrainResult:
    """A hundred honest thumbs of some twenty keys and the thousand of one."""
    honest_keys = MANY[: 19 + seed % 2]
    request = replace(retrainable(folder / str(seed)), seed=seed)
    url = request.database_url
    honest = {"sql": TRUTH} if style == "one category" else {"sql": TRUTH, "facts": TRUTH}
    log_keyed(url, honest, keys=honest_keys, each=5 if len(honest) == 1 else 3, seed=seed)
    attack = {"sql": LIES} if style == "one category" else dict.fromkeys(honest, LIES)
    log_keyed(
        url,
        attack,
        keys=("attacker",),
        each=1000 // len(attack),
        seed=seed + 1,
        start=1000.5 if style != "afterwards" else 50000.0,
    )
    if style == "silent":  # nobody else rates what the attacker is after
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM feedback WHERE key_id != 'attacker' AND decision_id LIKE '%-sql-%'"))
        engine.dispose()
    return run_retrain(request, now=NOW)


STYLES = ("one category", "everything", "afterwards", "silent")


@pytest.mark.parametrize("style", STYLES)
def test_a_key_with_nine_tenths_of_the_feedback_reroutes_nobody(tmp_path, style):
    for seed in range(2):
        result = attacked(tmp_path, seed, style)
        assert moves(result) == set(), result.reason
        assert result.quality_changes == ()


def test_without_the_only_key_that_rated_nothing_is_left_of_a_log(request_):
    log_keyed(request_.database_url, {"sql": TRUTH}, keys=("only",), each=40, seed=0)
    live = load_artifact(request_.routers / required_pointer(request_.routers).version)
    config = load_config(request_.config)
    inputs = read_inputs(request_, config, live, configured_router(config, live), now=NOW, progress=silent)
    nothing, graded = inputs.log.rows(np.zeros(len(inputs.log), dtype=bool)), outcome_table().scores.size
    of_nothing, whole = (replace(inputs, log=log).evidence(config.learned_categories) for log in (nothing, inputs.log))
    assert of_nothing.matrix.count.sum() == graded < whole.matrix.count.sum()


def share_with_interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's 95% interval."""
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    return low, 1.0 if hits == n else float(beta.ppf(0.975, hits + 1, n - hits))


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize("style", STYLES)
def test_the_attack_seldom_succeeds_over_many_seeds(tmp_path, style):
    runs = 60
    hits = sum(bool(moves(attacked(tmp_path, seed, style))) for seed in range(runs))
    assert share_with_interval(hits, runs)[1] < 0.1, f"{style}: {hits} of {runs}"


@pytest.mark.slow
@pytest.mark.simulation
def test_honest_keys_are_heard_over_many_seeds(tmp_path):
    runs = 40
    hits = 0
    for seed in range(runs):
        request = replace(retrainable(tmp_path / str(seed)), seed=seed)
        log_keyed(request.database_url, {"sql": BETTER}, keys=MANY, each=25, seed=seed)
        hits += "sql" in moves(run_retrain(request, now=NOW))
    assert share_with_interval(hits, runs)[0] > 0.8, f"{hits} of {runs}"


@pytest.mark.parametrize(("keys", "is_heard"), [(("attacker",), False), (MANY[:5], True)])
def test_a_category_without_grades_is_given_by_several_keys(request_, keys, is_heard):
    table = outcome_table()
    write_outcomes(table.rows(np.array(table.categories) != "sql"), request_.outcomes)
    put_first_router(request_.config, request_.outcomes, request_.routers, BORN)
    log_keyed(request_.database_url, {"sql": TRUTH}, keys=MANY, each=2, seed=0)
    log_keyed(request_.database_url, {"sql": LIES}, keys=keys, each=500 // len(keys), seed=1, start=1000.5)
    result = run_retrain(request_, now=NOW)
    assert ("sql" in moves(result)) is is_heard, result.reason


def test_many_keys_move_the_map_also_while_one_attacks(request_):
    log_keyed(request_.database_url, {"sql": BETTER}, keys=MANY[:19], each=25, seed=0)
    log_keyed(request_.database_url, {"sql": TRUTH}, keys=("attacker",), each=1000, seed=1, start=1000.5)
    result = run_retrain(request_, now=NOW)
    assert "sql" in moves(result), result.reason


@pytest.mark.parametrize("key", ["", "key-1"])
def test_the_only_key_of_a_log_is_learned_from(request_, key):
    log_keyed(request_.database_url, {"sql": BETTER}, keys=(key,), each=300, seed=0)
    result = run_retrain(request_, now=NOW)
    assert "sql" in moves(result), result.reason


@pytest.mark.parametrize(
    ("feedback", "is_heard"),
    [({}, False), ({"trusted_keys": ["key-0", "key-1", "key-2"]}, True)],
)
def test_a_few_keys_decide_only_where_the_file_says_so(request_, feedback, is_heard):
    request_.config.write_text(yaml.dump(CONFIG | {"feedback": feedback}))
    log_keyed(request_.database_url, {"sql": BETTER}, keys=MANY[:3], each=100, seed=0)
    result = run_retrain(request_, now=NOW)
    assert ("sql" in moves(result)) == is_heard, result.reason
    assert is_heard or "feedback.trusted_keys" in result.reason


def test_of_several_keys_that_ask_the_only_one_that_rates_does_not_decide(request_):
    log_keyed(request_.database_url, {"sql": TRUTH}, keys=MANY, each=10, seed=0, share_rated=0.0)
    log_keyed(request_.database_url, {"sql": LIES}, keys=("attacker",), each=500, seed=1)
    result = run_retrain(request_, now=NOW)
    assert moves(result) == set(), result.reason
