"""The report as files: JSON keys, a page that loads nothing, words that fit the numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from coe.eval.metrics.intervals import Estimate
from coe.eval.report import numbers, page
from coe.eval.routing import budget_sections
from coe.eval.routing import routing_page as words
from coe.eval.routing.baselines import one_hot
from coe.eval.routing.frontier import known_budgets
from coe.eval.routing.routing_page import routing_page
from coe.eval.routing.routing_records import Power, Report
from coe.eval.routing.trial import Choice
from tests.eval.drawn import charts_of_page
from tests.eval.routing.trial_data import TEST_SCORES, report_of, trial, with_costs

SECTIONS = [
    "ways-to-choose",
    "experts",
    "categories",
    "quality-against-active-parameters",
    "quality-against-cost",
    "quality-against-hosted-parameters",
    "how-this-was-measured",
]
HOSTILE = "</script><script>alert('x')</script>"


@cache
def make_report(
    command: str = "coe eval routing --outcomes x", usd: tuple[float, ...] = (0.001, 0.004, 0.009)
) -> Report:
    return report_of(with_costs(trial(), usd), command)


@cache
def full_report() -> Report:
    """With every section: methods and frontiers."""
    found = with_costs(trial(), [0.001, 0.004, 0.009])
    chosen = one_hot(np.array(TEST_SCORES).argmax(axis=1), 3)
    methods = [
        Choice("soft_map", "Soft <map>", "it adds up", chosen, "method"),
        Choice("map", "Best", "it knows", chosen, "method"),
    ]
    # The small expert, then the best of those that ever are best.
    limited = {
        budget.name: [np.zeros(4, dtype=np.int64), *[np.array([1, 1, 1, 2])] * (len(budget.limits) - 1)]
        for budget in known_budgets(found)
    }
    bare = report_of(replace(found, methods=tuple(methods), limited=limited))
    return with_data(bare, n_test=400)  # enough for quality over budgets


def with_data(report: Report, **changes: object) -> Report:
    return report.model_copy(update={"data": report.data.model_copy(update=changes)})


def gaining(gain: Estimate, n_test: int, power: Power | None = None) -> Report:
    """A report whose gain over the best single expert is another one."""
    report = make_report()
    coe = report.arms["coe"]
    coe = coe.model_copy(update={"gain": {**coe.gain, "best_single": gain}})
    changed = {"arms": {**report.arms, "coe": coe}, "power": power or report.power}
    return with_data(report.model_copy(update=changed), n_test=n_test)


def render(report: Report) -> str:
    return page.render(routing_page(report))


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
    assert {"arms", "seed", "command", "data", "headline"} <= set(written)
    names = {"coe", "best_single", "best_single_hindsight", "knn", "map_true", "category_oracle", "query_oracle"}
    assert names == set(written["arms"])
    for arm in written["arms"].values():
        assert {"mean_score", "interval", "mean_cost_usd", "mean_active_params_b"} <= set(arm)
        assert arm["interval"][0] <= arm["mean_score"] <= arm["interval"][1]
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


def test_the_page_says_what_the_numbers_say() -> None:
    report = make_report()
    html = rendered()
    assert f"<h1>{words.verdict(report)}</h1>" in html
    for arm in report.arms.values():
        assert arm.label in html
        assert numbers.percent(arm.mean_score) in html
    assert report.data.fingerprints["test"] in html
    assert HOSTILE not in html
    assert "&lt;/script&gt;" in html  # the command, escaped


def test_a_full_report_shows_every_section_and_survives_json() -> None:
    report = full_report()
    assert Report.model_validate_json(report.model_dump_json()) == report
    html = rendered_in_full()
    assert re.findall(r'<section id="([\w-]+)"', html) == SECTIONS
    assert re.findall(r'<li><a href="#([\w-]+)">', html) == SECTIONS
    short = [name for name in SECTIONS if not name.startswith(("quality", "what"))]
    assert re.findall(r'<section id="([\w-]+)"', rendered()) == short


def test_every_chart_stands_on_the_full_page_once_and_has_only_page_colours() -> None:
    charts = charts_of_page(rendered_in_full())
    drawn = {"experts", *(name for name in SECTIONS if name.startswith("quality"))}
    assert set(charts) == {"picture", *(f"chart-{name}" for name in drawn)}
    for name, spec in charts.items():
        assert rendered_in_full().count(f'id="{name}"') == 1, name
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b|https?://", json.dumps(spec)), name


def test_numbers_of_every_section_are_on_the_page() -> None:
    html = rendered_in_full()
    assert "Soft &lt;map&gt;" in html
    assert "Best" not in dict(words.ranked_arms(full_report()))  # the default is this router
    points = [row["value"] for row in charts_of_page(html)["chart-experts"]["data"]["values"]]
    assert points == [-75.0, 0.0, -100.0, -12.5, 0.0, 0.0]  # of a, then b, against maths alone


def test_a_cost_that_is_known_of_some_experts_is_not_called_unknown() -> None:
    some, none = make_report(usd=(0.001, float("nan"), 0.009)), make_report(usd=(float("nan"),) * 3)
    assert (make_report().data.cost, some.data.cost, none.data.cost) == ("recorded", "recorded", "unknown")
    assert "with the outcomes; it is unknown of 1 of the 3 experts, and of every choice" in render(some)
    assert "it is unknown of" not in rendered()
    filled = with_data(some, cost_filled=0.921)
    assert "with the outcomes; 92.1% of the costs are unknown and count as the mean of their" in render(filled)
    assert "Cost is unknown." in render(none)


def test_the_page_says_how_a_budget_was_counted() -> None:
    counted = "each expert counted with its mean on the fit queries"
    assert counted in render(with_data(make_report(), budgets={"cost_usd": 0.002}))
    assert counted not in rendered()


def test_one_category_is_counted_as_one() -> None:
    report = make_report()
    assert "out of 2 categories," in rendered()
    stage_one = report.stage_one.model_copy(update={"n_categories": 1})
    assert "out of 1 category," in render(report.model_copy(update={"stage_one": stage_one}))


def test_a_budget_in_words() -> None:
    made = routing_page(full_report())
    sized = next(section for section in made.sections if section.title == "Quality against active parameters")
    assert sized.sentence == (
        "This router is nowhere clearly above the best fixed mixture of experts. The best single expert's 75.0% is "
        "reached with 10.2B."
    )
    coe = full_report().frontier["active_params_b"]["coe"]
    ahead = coe[1].model_copy(update={"gain": Estimate(mean=0.2, interval=(0.1, 0.3))})
    assert budget_sections.gain_sentence([coe[0], ahead, *coe[2:]], numbers.billions) == (
        "This router is furthest above the best fixed mixture of experts at 10.2B, by +20.0 points (+10.0 to +30.0)."
    )
    assert "75.0% is not reached at any budget; the most is 31.2%." in budget_sections.single_sentence(
        full_report().model_copy(update={"frontier": {"active_params_b": {"coe": coe[:1]}}}),
        "active_params_b",
        numbers.billions,
    )


def test_quality_over_budgets_is_shown_from_enough_queries_that_use_different_amounts() -> None:
    full = full_report()
    few = render(with_data(full, n_test=54))
    assert "Quality against active parameters" not in few
    assert "Quality against budgets is shown from 200 test queries on" in few
    same = {
        name: tuple(point.model_copy(update={"amount": 0.135}) for point in curve)
        for name, curve in full.frontier["active_params_b"].items()
    }
    flat = full.model_copy(update={"frontier": {**full.frontier, "active_params_b": same}})
    assert "Quality against active parameters" not in render(flat)
    assert "Quality against budgets is shown" not in rendered_in_full()


def test_a_collapsed_router_and_categories_that_general_receives_are_warned_of() -> None:
    report = make_report()
    assert routing_page(report).warnings == []
    top = report.experts[0].model_copy(update={"share": 0.97})
    row = report.categories[0].model_copy(update={"fallback_share": 0.75, "n_test": 4})
    rows = tuple(row.model_copy(update={"category": f"c{i}"}) for i in range(8))
    found = words.warnings(report.model_copy(update={"experts": (top, *report.experts[1:]), "categories": rows}))
    assert found[0] == "maths serves 97.0% of the queries: routing is as good as off."
    assert "c0 (75% of 4)" in found[1]
    assert "c6" not in found[1]
    assert found[1].endswith(" and 2 more.")


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
    assert said in words.verdict(gaining(Estimate(mean=0.02, interval=(low, high)), 6))


def test_a_small_sample_says_what_it_can_show_and_how_many_queries_are_enough() -> None:
    """The first report of the README: 54 queries, standard error 4.7 points."""
    power = Power(smallest_shown=0.132, difference=0.02, queries=2353)
    report = gaining(Estimate(mean=-0.0185, interval=(-0.111, 0.074)), 54, power)
    assert words.verdict(report) == "54 queries cannot tell routing from the best single expert"
    assert words.power_sentence(report) == (
        " So many queries show a difference of 13.2 points or more; for 2.0 points it takes about 2,400."
    )


def test_only_a_narrow_interval_says_that_there_is_hardly_a_difference() -> None:
    power = Power(smallest_shown=0.019, difference=0.02, queries=2200)
    near = gaining(Estimate(mean=0.002, interval=(-0.012, 0.016)), 2400, power)
    assert words.verdict(near) == "Routing is within 2.0 points of the best single expert"
    assert words.power_sentence(near) == ""
    wide = gaining(Estimate(mean=0.01, interval=(-0.003, 0.023)), 2400, power)
    assert words.verdict(wide).startswith("2,400 queries cannot tell")
    assert words.power_sentence(wide) == " So many queries show a difference of 1.9 points or more."
    clear = Estimate(mean=0.05, interval=(0.03, 0.07))
    assert words.power_sentence(gaining(clear, 54, power)) == ""


def test_the_power_of_a_report_is_that_of_its_paired_differences() -> None:
    """Differences on the four test queries are 0, 0, -0.5 (small for maths) and 1: sd 0.629, standard error 0.315."""
    power = make_report().power
    assert power.smallest_shown == pytest.approx(2.8016 * 0.6292 / 2, rel=1e-3)
    assert power.queries == pytest.approx((2.8016 * 0.6292 / 0.02) ** 2, rel=1e-3)


def test_a_handful_of_queries_draws_no_verdict() -> None:
    """The interval of one query is a point, wherever it lies."""
    few = with_data(gaining(Estimate(mean=1.0, interval=(1.0, 1.0)), 1), experts=("one",))
    assert words.headline(few).startswith("Too few queries to tell")
    assert "on 1 held-out query over 1 expert it scores" in words.headline(few)
    html = render(few)
    assert "<h1>Too few queries" in html
    assert '<dd class="good">' not in html


def test_numbers_in_words() -> None:
    assert numbers.points(0.0423) == "+4.2"
    assert numbers.points(-0.0423) == "\u22124.2"
    assert numbers.points(-0.0004) == "0.0"
    assert numbers.percent(0.6149) == "61.5%"
    assert (numbers.percent(-0.0004), numbers.percent(-0.26, 0)) == ("0.0%", "\u221226%")
    assert (numbers.percent(None), numbers.percent(0.256, 0)) == ("", "26%")
    assert (numbers.dollars(None), numbers.dollars(0.0), numbers.dollars(0.0123)) == ("unknown", "$0", "$12.30")
    assert (numbers.billions(0.135), numbers.billions(31.12)) == ("0.14B", "31.1B")
