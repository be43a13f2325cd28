"""`coe eval routing` end to end: fits in a process of its own, decides, measures, writes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from coe.cli.command_line import run as run_cli
from coe.cli.progress import silent
from coe.eval.routing.routing_page import how_of
from coe.eval.routing.routing_records import Arm
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.routing_run import load, table_request
from coe.eval.routing.table_fit import fit_methods
from coe.eval.routing.trial import mean_costs
from coe.router import plugins
from coe.router.config.policy import Budgets
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.datasets.outcomes import read_outcomes
from coe.training.types import split_of
from tests.eval.routing.trial_data import table

BENCH = Path(os.environ.get("COE_BENCH_DATA", Path(__file__).parents[3] / ".." / "shared" / "data")) / "routing"
FAST = ("--encoder", "hashing")
TOPICS = {
    "a": ("sum", "add", "count", "multiply", "number", "digits", "total", "times"),
    "b": ("court", "judge", "contract", "sue", "law", "appeal", "statute", "verdict"),
}


def two_topics(folder: Path, n: int = 160) -> Path:
    """Maths is right on a, law on b, small on every fourth query; the words give the topic away."""
    rng = np.random.default_rng(0)
    categories = ["ab"[i % 2] for i in range(n)]
    texts = tuple(f"{' '.join(rng.choice(TOPICS[c], size=5))} {i}" for i, c in enumerate(categories))
    scores = [[float(i % 4 == 0), float(c == "a"), float(c == "b")] for i, c in enumerate(categories)]
    made = table(scores, categories, "fit")
    write_outcomes(replace(made, texts=texts, splits=tuple(split_of(text) for text in texts)), folder)
    return folder


def test_strategies_are_played_where_answers_are_known(tmp_path: Path) -> None:
    """The three are right on half of the queries each, by chance; those who are right agree."""
    rng = np.random.default_rng(0)
    n = 400
    scores = (rng.random((n, 3)) < 0.6).astype(np.float32)
    wrong = 1 + np.arange(3)
    answers = np.where(scores > 0, 0, wrong)
    texts = tuple(f"{' '.join(rng.choice(TOPICS['a'], size=5))} {i}" for i in range(n))
    made = table(scores.tolist(), ["a"] * n, "fit")
    splits = tuple(split_of(text) for text in texts)
    write_outcomes(replace(made, texts=texts, splits=splits, answers=answers), tmp_path / "t")
    arguments = ["--outcomes", str(tmp_path / "t"), "--out", str(tmp_path / "out"), *FAST]
    assert run_cli("eval routing", arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    arms = report["arms"]
    assert arms["coe"]["mean_calls"] == 1
    assert arms["agree"]["gain"]["best_single"]["interval"][0] > 0
    assert arms["agree"]["gap_closed"]["mean"] > 0.2
    assert arms["agree"]["binding"] == arms["coe"]["binding"] == []
    held = Arm.model_validate(arms["agree"] | {"binding": ["cost_usd"]})
    assert "an arbiter decides; " in how_of(held)
    assert how_of(held).endswith(" on average; held by cost_usd")
    assert 2 < arms["agree"]["mean_calls"] < 3
    assert arms["agree"]["mean_active_params_b"] > arms["coe"]["mean_active_params_b"]


def test_a_router_that_finds_the_topic_beats_the_best_single(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--outcomes", str(two_topics(tmp_path / "topics")), "--out", str(out), "--seed", "3", *FAST]
    unsorted = ["--experts", "small,maths,law"]
    assert run_cli("eval routing", [*arguments, *unsorted, "--method", "map", "--folds", "2"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert set(report["methods"]) == set(plugins.kinds("router.scorers"))  # a named map hides no other method
    assert report["methods"]["map"]["gain"]["coe"]["mean"] == 0
    arms = report["arms"]
    assert arms["category_oracle"]["mean_score"] == 1.0
    assert arms["best_single"]["mean_score"] < 0.7
    assert arms["coe"]["mean_score"] > 0.9
    assert report["frontier"]["active_params_b"]["coe"][-1]["mean_score"] == arms["coe"]["mean_score"]
    assert arms["coe"]["gain"]["best_single"]["interval"][0] > 0
    assert report["seed"] == 3
    assert report["out_of_fold"]["n"] == 160
    assert report["out_of_fold"]["coe"] > 0.9
    assert report["data"]["n_test"] == sum(row["n_test"] for row in report["categories"])
    assert (out / "routers" / report["data"]["router_version"] / "manifest.json").is_file()
    assert report["headline"].startswith("Routing beats the best single expert")
    assert (out / "report.html").stat().st_size > 500_000


def test_costs_by_category_reach_the_router_and_its_frontier(tmp_path: Path) -> None:
    """Each expert is dear on what it is good at; in the mean they cost 1, 3 and 5 in 100,000."""
    folder, out = two_topics(tmp_path / "topics"), tmp_path / "out"
    made = read_outcomes(folder)
    assert made.experts == ("law", "maths", "small")
    usd = np.array([{"a": (1, 5, 1), "b": (9, 1, 1)}[category] for category in made.categories], np.float32) / 1e5
    made = replace(made, cost_usd=usd)
    write_outcomes(made, folder)
    arguments = ["--outcomes", str(folder), "--out", str(out), *FAST]
    assert run_cli("eval routing", arguments) == 0
    report = json.loads((out / "report.json").read_text())
    amounts = {point["budget"]: point["amount"] for point in report["frontier"]["cost_usd"]["coe"]}
    assert all(amount <= limit * 1.01 for limit, amount in amounts.items())  # no map keeps 4 at mean costs but 7 really
    wanted = table_request(made, RoutingRequest(outcomes=folder, out=out, command="", encoder="hashing"))
    artifact = fit_methods(out / "r", wanted, now=datetime(2026, 1, 2, tzinfo=UTC), progress=silent)["soft_map"]
    router = load(artifact, made, Budgets(cost_usd=4.5e-5))
    assert router.costs.cost_usd == pytest.approx(np.array([[1, 5, 1], [9, 1, 1], [5, 3, 1]]) / 1e5, rel=1e-4)
    preference = router.policy("default").preference
    assert preference.tolls.shape == (3, 3)
    holes, categories = usd.copy(), ["general"] * 20 + list(made.categories[20:])
    holes[::3, 2], holes[::5, 2] = np.nan, 3e-5
    spotty = replace(made, cost_usd=holes, categories=tuple(categories))
    least = float(mean_costs(spotty)[2])
    assert load(artifact, spotty, Budgets(cost_usd=least)).expert_of()["a"] == "small"  # one that an expert alone keeps


def test_what_training_refuses_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--outcomes", str(two_topics(tmp_path / "topics")), "--out", str(tmp_path / "out"), *FAST]
    assert run_cli("eval routing", [*arguments, "--method", "oracle"]) == 1
    assert "unknown kind 'oracle' of router.scorers; allowed: " in capsys.readouterr().err


def test_where_no_category_can_be_learned_all_queries_are_one(tmp_path: Path) -> None:
    folder = two_topics(tmp_path / "topics")
    made = read_outcomes(folder)
    write_outcomes(replace(made, categories=made.prompt_ids), folder)
    arguments = ["--outcomes", str(folder), "--out", str(tmp_path / "out"), *FAST]
    assert run_cli("eval routing", arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["data"]["has_one_category"] is True
    assert report["stage_one"]["accuracy"] == 1.0
    assert [row["category"] for row in report["categories"]] == ["all"]
    assert "so all queries are one" in (tmp_path / "out" / "report.html").read_text()


def test_every_method_is_measured_under_the_budget_and_one_of_them_is_the_default(tmp_path: Path) -> None:
    arguments = ["--outcomes", str(two_topics(tmp_path / "topics")), "--out", str(tmp_path / "out"), *FAST]
    assert run_cli("eval routing", [*arguments, "--method", "soft_map", "--budget", "active_params_b=5"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["arms"]["knn"]["mean_active_params_b"] > 5
    assert set(report["methods"]) == set(plugins.kinds("router.scorers"))
    assert report["methods"]["soft_map"]["mean_score"] == report["arms"]["coe"]["mean_score"]
    assert report["data"]["method"] == "soft_map"
    assert report["methods"]["soft_map"]["gain"]["coe"]["mean"] == 0
    assert {"active_params_b", "hosted_params_b"} <= set(report["frontier"])
    assert report["stage_one"]["calibration_error"] < 0.2


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (("--experts", " , "), "--experts: ' , ' names nothing; expected names separated by commas"),
        (("--experts", ""), "--experts: '' names nothing"),
        (("--budget", "cost_usd=inf"), "--budget cost_usd: inf is not allowed"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str], complaint: str
) -> None:
    arguments = ["--outcomes", str(tmp_path / "none"), "--out", str(tmp_path / "out"), *option]
    assert run_cli("eval routing", arguments) != 0
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_a_report_is_not_written_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("")
    assert run_cli("eval routing", ["--outcomes", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert f"cannot be written because {tmp_path}/out is not a folder; name another" in capsys.readouterr().err


def test_a_budget_that_cannot_be_met_names_the_smallest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = two_topics(tmp_path / "topics")
    arguments = ["--outcomes", str(folder), "--out", str(tmp_path / "out"), "--budget", "active_params_b=1", *FAST]
    assert run_cli("eval routing", arguments) == 1
    assert "budget active_params_b=1 cannot be met; the smallest value that would do is 2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not (BENCH / "xstest").is_dir(), reason=f"no benchmark data at {BENCH} (set COE_BENCH_DATA)")
def test_a_real_table(tmp_path: Path) -> None:
    assert run_cli("eval routing", ["--outcomes", str(BENCH / "xstest"), "--out", str(tmp_path), *FAST]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["data"]["n_fit"] + report["data"]["n_overlap_removed"] == 353
    assert report["data"]["n_test"] == 97
    assert report["arms"]["best_single"]["label"] == "Best single (gpt-4-0314)"
    assert report["arms"]["best_single"]["mean_score"] == pytest.approx(96 / 97)
