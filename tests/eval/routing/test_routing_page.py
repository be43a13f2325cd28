"""The report as files: JSON keys, a page that loads nothing, words that fit the numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.metrics.cheap_strong import CallOrder
from eval.metrics.intervals import Estimate
from eval.report import numbers, page
from eval.routing import routing_words as words
from eval.routing.budget_section import budget_section, frontier_sentences, label_positions, one_number_table
from eval.routing.routing_page import routing_page
from eval.routing.routing_records import CategoryFinding, CheapStrong, Diagnostics, Power, Report
from eval.routing.trial import MethodOutput
from router.types import GENERAL
from tests.eval.drawn import charts_of_page
from tests.eval.routing.trial_data import TEST_SCORES, evidence, report_of, trial, with_costs

SECTIONS = (
    "scores",
    "regret",
    "categories",
    "costs",
    "calls",
    "certainty",
    "diagnostics",
    "lost",
    "measured",
)
HOSTILE = "</script><script>alert('x')</script>"


@cache
def make_report(
    command: str = "coe eval routing --outcomes x", usd: tuple[float, ...] = (0.001, 0.004, 0.009)
) -> Report:
    return report_of(with_costs(trial(), usd), command)


@cache
def full_report() -> Report:
    """With every section: methods, frontiers, two experts."""
    found = with_costs(trial(), [0.001, 0.004, 0.009])
    scores = np.array(TEST_SCORES)
    methods = [
        MethodOutput("soft", "Soft <map>", "it adds up", scores, scores.argmax(axis=1), sample_quality=scores),
        MethodOutput("best", "Best", "it knows", scores, scores.argmax(axis=1), sample_quality=scores, is_default=True),
    ]
    known = {"evidence": evidence(np.full((3, 3), 0.5), np.ones(3), np.full((3, 3), 9.0)), "rows": ("a", "b", GENERAL)}
    bare = report_of(replace(found, methods=tuple(methods), **known))
    order = CallOrder(
        apgr=Estimate(mean=0.6, interval=(0.5, 0.7)),
        cpt={50: Estimate(mean=0.3, interval=(0.2, 0.4)), 80: Estimate(mean=0.7, interval=(0.6, 0.8))},
        share=(0.0, 1.0),
        mean_score=(0.4, 0.6),
    )
    calls = CheapStrong(
        weak="small",
        strong="law",
        weak_score=0.4,
        strong_score=0.6,
        oracle_score=0.7,
        orders={"best": order, "random": order, "oracle": order},
    )
    enough = bare.data.model_copy(update={"n_test": 400})  # for curves over budgets
    return bare.model_copy(update={"cheap_strong": calls, "data": enough})


def render(report: Report) -> str:
    return page.render(routing_page(report))


def charts_of(report: Report) -> dict[str, page.Spec]:
    return {name: chart.spec for name, chart in routing_page(report).charts.items()}


@cache
def rendered() -> str:
    return render(make_report(HOSTILE))


@cache
def rendered_in_full() -> str:
    return render(full_report())


def test_json_has_the_promised_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "render", lambda made: "<html>")
    report = make_report()
    written = json.loads(page.write_report(report, routing_page(report), tmp_path / "out")[0].read_text())
    assert {"arms", "regret", "seed", "command", "data", "gain", "gap_closed", "headline"} <= set(written)
    names = {"coe", "random", "cheapest", "best_single", "best_single_hindsight", "knn"}
    names |= {"category_oracle", "query_oracle"}
    assert names == set(written["arms"])
    for arm in written["arms"].values():
        assert {"mean_score", "interval", "mean_cost_usd", "mean_active_params_b"} <= set(arm)
        assert arm["interval"][0] <= arm["mean_score"] <= arm["interval"][1]
    assert set(written["gain"]) == {"best_single", "best_single_hindsight", "knn", "random"}
    assert set(written["data"]["fingerprints"]) == {"fit", "test"}
    assert Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes()) == report


def test_the_same_seed_gives_the_same_report() -> None:
    assert make_report() == make_report.__wrapped__()


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
    assert f"<h1>{words.verdict(report.gain['best_single'], report.data.n_test, report.power)}</h1>" in html
    for arm in report.arms.values():
        assert arm.label in html
        assert numbers.percent(arm.mean_score) in html
    assert report.data.fingerprints["test"] in html
    assert "&lt;/script&gt;" in html  # the command, escaped


def test_every_chart_has_its_place_and_only_page_colours() -> None:
    charts = charts_of(make_report())
    always = {"chart-arms", "chart-regret", "chart-categories", "chart-confusion", "chart-reliability"}
    assert set(charts) == {*always, "chart-size", "chart-cost"}
    for name, spec in charts.items():
        assert f'id="{name}"' in rendered()
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b|https?://", json.dumps(spec)), name


def test_a_chart_without_amounts_is_left_out() -> None:
    report = make_report()
    unsized = {
        "arms": {name: arm.model_copy(update={"mean_active_params_b": None}) for name, arm in report.arms.items()},
        "experts": tuple(row.model_copy(update={"active_params_b": None}) for row in report.experts),
    }
    assert "chart-size" not in charts_of(report.model_copy(update=unsized))


def test_labels_of_close_dots_are_spread_and_others_stay() -> None:
    dots = [(70.0, 50.0), (70.0, 50.5), (69.0, 49.5), (5.0, 50.2), (70.0, 30.0)]
    found = label_positions(dots)
    assert (found[1], found[3], found[4]) == (50.5, 50.2, 30.0)
    line = 0.04 * 20.5
    close = sorted([found[0], found[1], found[2]])
    assert min(b - a for a, b in pairwise(close)) == pytest.approx(line)


def test_a_full_report_shows_every_section_and_survives_json() -> None:
    report = full_report()
    assert Report.model_validate_json(report.model_dump_json()) == report
    html = rendered_in_full()
    ids = re.findall(r'<section id="(\w+)"', html)
    assert ids == ["minute", *SECTIONS]
    assert re.findall(r'<li><a href="#(\w+)">', html) == list(SECTIONS)
    short = re.findall(r'<section id="(\w+)"', rendered())
    assert short == ["minute", "scores", "regret", "categories", "costs", "certainty", "lost", "measured"]


def test_every_chart_stands_on_the_full_page_once() -> None:
    charts = charts_of(full_report())
    assert {"chart-calls", "chart-reliability", "chart-confusion", "chart-frontier-hosted_params_b"} < set(charts)
    for name, spec in charts_of_page(rendered_in_full()).items():
        assert rendered_in_full().count(f'id="{name}"') == 1, name
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b|https?://", json.dumps(spec)), name


def test_numbers_of_the_new_sections_are_on_the_page() -> None:
    html = rendered_in_full()
    assert "Soft &lt;map&gt;" in html
    assert "Best (default)" in html
    assert '0.600 <span class="range">0.500 to 0.700' in html
    assert "9 cells of the map" not in html  # general is not a category to sample from
    assert "6 cells of the map have fewer than 25 graded answers" in html
    for query in full_report().lost:
        assert query.prompt_id in html


def test_a_cost_that_is_known_of_some_experts_is_not_called_unknown() -> None:
    some, none = make_report(usd=(0.001, float("nan"), 0.009)), make_report(usd=(float("nan"),) * 3)
    assert (make_report().data.cost, some.data.cost, none.data.cost) == ("recorded", "recorded", "unknown")
    assert "with the outcomes; it is unknown of 1 of the 3 experts, and of every choice" in render(some)
    assert "it is unknown of" not in rendered()
    filled = some.model_copy(update={"data": some.data.model_copy(update={"cost_filled": 0.921})})
    assert "with the outcomes; 92.1% of the costs are unknown and count as the mean of their" in render(filled)
    assert "Cost is unknown." in render(none)


def test_a_kind_that_the_command_names_is_not_called_the_default() -> None:
    full = full_report()
    named = render(full.model_copy(update={"data": full.data.model_copy(update={"method": "best"})}))
    assert "Best (named)" in named
    assert "This router is of the kind that the command names." in named
    assert "The default was chosen without the test queries." in rendered_in_full()


def test_the_page_says_how_a_budget_was_counted() -> None:
    report = make_report()
    limited = report.model_copy(update={"data": report.data.model_copy(update={"budgets": {"cost_usd": 0.002}})})
    counted = "each expert counted with its mean on the fit queries"
    assert counted in render(limited)
    assert counted not in rendered()


def test_one_category_is_counted_as_one() -> None:
    report = make_report()
    assert "out of 2 categories." in rendered()
    assert "Scores of all 2 categories" in rendered()
    stage_one = report.stage_one.model_copy(update={"n_categories": 1})
    html = render(report.model_copy(update={"stage_one": stage_one, "categories": report.categories[:1]}))
    assert "out of 1 category." in html
    assert "Scores of 1 category<" in html


def test_the_page_tells_when_fit_queries_have_another_metric() -> None:
    report = make_report()
    assert "scored by acc</dd>" in rendered()
    other = report.model_copy(update={"data": report.data.model_copy(update={"fit_metric": "judge"})})
    assert "scored by acc; the fit queries by judge</dd>" in render(other)


def test_three_charts_come_first_and_say_something_about_this_router() -> None:
    full = full_report()
    assert list(routing_page(full).first) == ["chart-arms", "chart-calls", "chart-regret"]
    bare = full.model_copy(update={"cheap_strong": None})
    assert list(routing_page(bare).first)[1] == "chart-frontier-active_params_b"
    bare = make_report()
    assert list(routing_page(bare).first)[1] == "chart-size"
    arms = {name: arm.model_copy(update={"mean_active_params_b": None}) for name, arm in bare.arms.items()}
    assert list(routing_page(bare.model_copy(update={"arms": arms})).first)[1] == "chart-cost"


def test_a_frontier_in_words() -> None:
    sentences = frontier_sentences(full_report())
    assert len(sentences) == 2
    assert sentences[0].startswith("Active parameters: Best is furthest above the best fixed mixture of experts at ")
    assert "The best single expert's 75.0% at 7.0B is reached with" in sentences[0]
    assert frontier_sentences(make_report()) == []


def test_an_axis_on_which_all_choices_are_the_same_is_a_sentence_and_no_chart() -> None:
    full = full_report()
    sizes = iter(np.linspace(0.1350, 0.1362, 99))

    def resized(known: Mapping[str, Any]) -> dict[str, Any]:
        return {name: one.model_copy(update={"mean_active_params_b": next(sizes)}) for name, one in known.items()}

    curves = {
        name: tuple(point.model_copy(update={"amount": 0.135}) for point in curve)
        for name, curve in full.frontier["active_params_b"].items()
    }
    near = full.model_copy(
        update={
            "arms": resized(full.arms),
            "methods": resized(full.methods),
            "experts": tuple(one.model_copy(update={"active_params_b": 0.1362}) for one in full.experts),
            "frontier": {**full.frontier, "active_params_b": curves},
        }
    )
    assert set(charts_of(full)) - set(charts_of(near)) == {"chart-size", "chart-frontier-active_params_b"}
    said = [block for block in budget_section(near).blocks if isinstance(block, str)]
    assert said[-1] == (
        "A chart over mean active parameters per query (billions) would say nothing: all choices have about the same, "
        "0.135 to 0.136."
    )
    assert not any(sentence.startswith("Active parameters:") for sentence in said)


def test_choices_as_one_number_are_ordered_by_score() -> None:
    rows = one_number_table(full_report()).rows
    assert [row.name for row in rows if row.is_own] == ["This router"]
    cells = [(row.name, row.cells[1]) for row in rows]
    scores = [float(cell.text.rstrip("%")) for _, cell in cells if cell.text]
    assert scores == sorted(scores, reverse=True)
    assert {"Map", "Experts alone"} <= {name for name, cell in cells if not cell.text}


def test_a_map_that_leads_is_drawn_once_and_every_curve_has_its_own_colour() -> None:
    """The leading method may be one of the curves that are always shown."""
    full = full_report()
    method = full.methods["best"].model_copy(update={"label": "Category map"})
    led = full.model_copy(update={"methods": {"map": method}})
    encoding = charts_of(led)["chart-frontier-active_params_b"]["layer"][1]["encoding"]
    scale = encoding["color"]["scale"]
    assert scale["domain"] == ["Map", "Map with a draw", "Best fixed mixture"]
    assert len(set(scale["range"])) == 3


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.05, "beats"),
        (-0.05, -0.01, "does worse than"),
        (-0.01, 0.05, "cannot tell"),
        (0.0, 0.05, "cannot tell"),
    ],
)
def test_the_verdict_needs_an_interval_without_zero(low: float, high: float, said: str) -> None:
    assert said in words.verdict(Estimate(mean=0.02, interval=(low, high)), 6)


GAIN_OF_54 = Estimate(mean=-0.0185, interval=(-0.111, 0.074))
POWER_OF_54 = Power(smallest_shown=0.132, difference=0.02, queries=2353)


def test_a_small_sample_says_what_it_can_show_and_how_many_queries_are_enough() -> None:
    """The first report of the README: 54 queries, standard error 4.7 points."""
    assert words.verdict(GAIN_OF_54, 54, POWER_OF_54) == "54 queries cannot tell routing from the best single expert"
    said = words.power_sentence(GAIN_OF_54, 54, POWER_OF_54)
    assert said == (
        "So few queries show a difference of 13.2 points or more, hardly a smaller one; for 2.0 points it takes about "
        "2,400."
    )
    assert "no difference" not in words.verdict(GAIN_OF_54, 54)


def test_only_a_narrow_interval_says_that_there_is_hardly_a_difference() -> None:
    near = Estimate(mean=0.002, interval=(-0.012, 0.016))
    power = Power(smallest_shown=0.019, difference=0.02, queries=2200)
    assert words.verdict(near, 2400, power) == "Routing is within 2.0 points of the best single expert"
    assert words.power_sentence(near, 2400, power) is None
    wide = Estimate(mean=0.01, interval=(-0.003, 0.023))
    assert words.verdict(wide, 2400, power).startswith("2,400 queries cannot tell")
    assert words.power_sentence(wide, 2400, power) == (
        "A difference of 1.9 points or more would most likely have shown."
    )
    clear = Estimate(mean=0.05, interval=(0.03, 0.07))
    assert words.power_sentence(clear, 2400, power) is None
    assert words.power_sentence(clear, 54, power) == (
        "So few queries show only large differences; for 2.0 points it takes about 2,200."
    )


def test_choices_that_score_alike_everywhere_are_said_to() -> None:
    same = Estimate(mean=0.0, interval=(0.0, 0.0))
    said = words.power_sentence(same, 54, Power(smallest_shown=0.0, difference=0.02, queries=None))
    assert said.startswith("Both answered every query equally well")


def test_the_power_of_a_report_is_that_of_its_paired_differences() -> None:
    """Differences on the four test queries are 0, 0, -0.5 (small for maths) and 1: sd 0.629, standard error 0.315."""
    power = make_report().power
    assert power.smallest_shown == pytest.approx(2.8016 * 0.6292 / 2, rel=1e-3)
    assert power.queries == pytest.approx((2.8016 * 0.6292 / 0.02) ** 2, rel=1e-3)


def falling_report(n_test: int) -> Report:
    """The full report where a larger budget happened to score less on the test queries."""
    full = full_report()
    curves = full.frontier["active_params_b"]
    fallen = {
        name: tuple(
            point.model_copy(update={"mean_score": 0.7 - 0.05 * i, "interval": (0.6 - 0.05 * i, 0.8 - 0.05 * i)})
            for i, point in enumerate(points)
        )
        for name, points in curves.items()
    }
    data = full.data.model_copy(update={"n_test": n_test})
    return full.model_copy(update={"frontier": {**full.frontier, "active_params_b": fallen}, "data": data})


def drawn(spec: object) -> dict[str, list[float]]:
    """Scores of every curve of a chart, in order of the amount."""
    found: dict[str, list[tuple[float, float]]] = {}

    def look(part: object) -> None:
        if isinstance(part, dict):
            if {"group", "budget", "amount", "score"} <= set(part):
                found.setdefault(str(part["group"]), []).append((part["amount"], part["score"]))
            for each in part.values():
                look(each)
        elif isinstance(part, list):
            for each in part:
                look(each)

    look(spec)
    return {name: [score for _, score in sorted(pairs)] for name, pairs in found.items()}


def test_a_larger_budget_is_never_drawn_with_less_quality() -> None:
    charts = charts_of(falling_report(400))
    curves = drawn(charts["chart-frontier-active_params_b"])
    assert curves
    for name, scores in curves.items():
        assert np.diff(scores).min() >= -1e-9, name


def test_no_curve_over_budgets_is_drawn_from_few_queries() -> None:
    few = falling_report(54)
    assert not [name for name in charts_of(few) if name.startswith("chart-frontier")]
    html = render(few)
    assert "Quality over budgets is not shown: from 54 test queries a larger budget can seem to buy less." in html
    assert "Every budget on" not in html
    assert len(frontier_sentences(few)) == 1


def test_a_handful_of_queries_draws_no_verdict() -> None:
    """The interval of one query is a point, wherever it lies."""
    assert words.verdict(Estimate(mean=1.0, interval=(1.0, 1.0)), 5).startswith("Too few queries to tell")
    report = make_report()
    few = report.data.model_copy(update={"n_test": 1, "experts": ("one",)})
    said = words.headline(report.arms, report.gain, report.gap_closed, few)
    assert said.startswith("Too few")
    assert "on 1 held-out query over 1 expert it scores" in said
    winning = {**report.gain, "best_single": Estimate(mean=1.0, interval=(1.0, 1.0))}
    html = render(report.model_copy(update={"gain": winning}))
    assert "<h1>Too few queries" in html
    assert '<dd class="good">' not in html


def test_numbers_in_words() -> None:
    assert numbers.points(0.0423) == "+4.2"
    assert numbers.points(-0.0423) == "\u22124.2"
    assert numbers.points(-0.0004) == "0.0"
    assert numbers.percent(0.6149) == "61.5%"
    assert (numbers.percent(-0.0004), numbers.percent(-0.26, 0)) == ("0.0%", "\u221226%")
    assert (numbers.percent(None), numbers.percent(0.256, 0), numbers.number(0.12345, 3)) == ("", "26%", "0.123")
    assert (numbers.seconds(1.46), numbers.seconds(240.0), numbers.microseconds(1234.4)) == (
        "1.5 s",
        "4.0 min",
        "1,234 \u00b5s",
    )
    assert (words.amount(0.0123, "cost_usd"), words.amount(31.12, "active_params_b")) == ("$12.30", "31.1B")
    assert (numbers.dollars(None), numbers.dollars(0.0), numbers.dollars(0.0123)) == ("unknown", "$0", "$12.30")
    assert (numbers.billions(0.135), numbers.billions(31.12)) == ("0.14B", "31.1B")


def test_diagnoses_in_words() -> None:
    fine = Diagnostics(
        routing_entropy=0.8,
        top_expert="maths",
        top_share=0.5,
        rare={},
        is_largest_always=None,
        degraded=(),
        underused=(),
        needed_per_cell=25,
        thin=(),
        n_thin=0,
    )
    said = words.diagnosis(fine)
    assert [(name, is_fine) for name, is_fine, _ in said] == [
        ("Collapse", True),
        ("Degradation", True),
        ("Underuse", True),
        ("Thin cells", True),
    ]
    many = tuple(CategoryFinding(category=f"c{i}", n=4, share=0.75, expert="small") for i in range(8))
    ill = fine.model_copy(
        update={"top_share": 0.99, "rare": {"law": 0.0}, "is_largest_always": True, "degraded": many, "n_thin": 3}
    )
    signs = {name: (is_fine, text) for name, is_fine, text in words.diagnosis(ill)}
    assert [name for name, (is_fine, _) in signs.items() if not is_fine] == [
        "Collapse",
        "Budget",
        "Degradation",
        "Thin cells",
    ]
    assert "maths serves 99.0% of the queries, and 1 serve less than 1%: law." in signs["Collapse"][1]
    assert "c0 (75% of 4)" in signs["Degradation"][1]
    assert "c6" not in signs["Degradation"][1]
    assert signs["Degradation"][1].endswith("and 2 more.")
    assert signs["Thin cells"][1].startswith("3 cells")
