"""The report as files: JSON keys, a page that loads nothing, words that fit the numbers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from eval.report import page, words
from eval.report.charts import all_charts, label_positions
from eval.report.schema import Difference, Report
from eval.routing import data_facts, measure
from eval.trial_tables import RoutingRequest, Tables
from tests.eval.trial_data import trial, with_costs

HOSTILE = "</script><script>alert('x')</script>"


def make_report(command: str = "coe eval routing --outcomes x") -> Report:
    found = with_costs(trial(), [0.001, 0.004, 0.009])
    request = RoutingRequest(outcomes=Path("x"), out=Path("y"), command=command)
    tables = Tables(found.fit, found.test, {"train": 8, "valid": 0, "test": 4}, 0)
    facts = data_facts(request, tables, "0" * 16)
    return measure(found, request, facts, rng=np.random.default_rng(0), now=datetime(2026, 1, 2, tzinfo=UTC))


@cache
def rendered() -> str:
    return page.render(make_report(HOSTILE))


def test_json_has_the_promised_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "render", lambda report: "<html>")
    report = make_report()
    written = json.loads(page.write_report(report, tmp_path / "out")[0].read_text())
    assert {"arms", "regret", "seed", "command", "data", "gain", "gap_closed", "headline"} <= set(written)
    names = {"coe", "random", "cheapest", "best_single", "category_oracle", "query_oracle", "knn"}
    assert names == set(written["arms"])
    for arm in written["arms"].values():
        assert {"mean_score", "interval", "mean_cost_usd", "mean_active_params_b"} <= set(arm)
        assert arm["interval"][0] <= arm["mean_score"] <= arm["interval"][1]
    assert set(written["gain"]) == {"best_single", "knn", "random"}
    assert set(written["data"]["fingerprints"]) == {"fit", "test"}
    assert Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes()) == report


def test_the_same_seed_gives_the_same_report() -> None:
    assert make_report() == make_report()


def test_the_page_loads_nothing() -> None:
    html = re.sub(r"<script>.*?</script>", "", rendered(), flags=re.S)
    assert not re.search(r"https?://", html)
    tags = re.sub(r"(<script[^>]*>).*?</script>", r"\1", rendered(), flags=re.S)
    assert not re.search(r"<(?:script|img|iframe|link|object|embed)\b[^>]*\b(?:src|href)=(?![\"']data:)", tags)
    assert not re.search(r"@import|url\(", html)


def test_data_cannot_break_out_of_the_page() -> None:
    assert HOSTILE not in rendered()
    assert rendered().count("<script") == 3
    specs = page.script_json({"chart": {"title": HOSTILE}})
    assert "<" not in specs
    assert json.loads(specs) == {"chart": {"title": HOSTILE}}


def test_the_page_says_what_the_numbers_say() -> None:
    report = make_report()
    html = rendered()
    assert f"<h1>{words.verdict(report.gain['best_single'])}</h1>" in html
    for arm in report.arms.values():
        assert arm.label in html
        assert words.percent(arm.mean_score) in html
    assert report.data.fingerprints["test"] in html
    assert "&lt;/script&gt;" in html  # the command, escaped


def test_every_chart_has_its_place_and_only_page_colours() -> None:
    charts = all_charts(make_report())
    assert set(charts) == {"chart-arms", "chart-regret", "chart-categories", "chart-size", "chart-cost"}
    for name, spec in charts.items():
        assert f'id="{name}"' in rendered()
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b|https?://", json.dumps(spec)), name


def test_a_chart_without_amounts_is_left_out() -> None:
    report = make_report()
    unsized = {
        "arms": {name: arm.model_copy(update={"mean_active_params_b": None}) for name, arm in report.arms.items()},
        "experts": tuple(row.model_copy(update={"active_params_b": None}) for row in report.experts),
    }
    assert "chart-size" not in all_charts(report.model_copy(update=unsized))


def test_labels_of_close_dots_are_spread_and_others_stay() -> None:
    dots = [(70.0, 50.0), (70.0, 50.5), (69.0, 49.5), (5.0, 50.2), (70.0, 30.0)]
    found = label_positions(dots)
    assert (found[1], found[3], found[4]) == (50.5, 50.2, 30.0)
    line = 0.04 * 20.5
    close = sorted([found[0], found[1], found[2]])
    assert min(b - a for a, b in pairwise(close)) == pytest.approx(line)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.05, "beats"), (-0.05, -0.01, "does worse than"), (-0.01, 0.05, "no difference"), (0.0, 0.05, "no diff")],
)
def test_the_verdict_needs_an_interval_without_zero(low: float, high: float, said: str) -> None:
    assert said in words.verdict(Difference(mean=0.02, interval=(low, high)))


def test_numbers_in_words() -> None:
    assert words.points(0.0423) == "+4.2"
    assert words.points(-0.0423) == "\u22124.2"
    assert words.points(-0.0004) == "0.0"
    assert words.percent(0.6149) == "61.5%"
    assert (words.dollars(None), words.dollars(0.0), words.dollars(0.0123)) == ("unknown", "$0", "$12.3")
    assert (words.billions(0.135), words.billions(31.12)) == ("0.14B", "31.1B")
