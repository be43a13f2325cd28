import math
from dataclasses import replace

import pytest
from pydantic import ValidationError

from coe.router.types import Interval, Metric, Verdict
from coe.training.gate import Comparison, Terms, judge, more_needed


def compared(name, difference, half_width, *, n=200, effective_n=None, odds=None, **more) -> Comparison:
    interval = Interval(low=difference - half_width, high=difference + half_width)
    return Comparison(
        name,
        Metric(value=0.5, n=n),
        Metric(value=0.5 + difference, n=n),
        Metric(value=difference, interval=interval, n=n),
        effective_n=n if effective_n is None else effective_n,
        **more if odds is None else {"log_e": math.log(odds), **more},
    )


SAME = compared("category accuracy", 0.0, 0.01)


def verdict(outcomes, log, *, accuracy=SAME, cost=(1.0, 1.0), crossed=None, **terms):
    wanted = Terms(margin=0.02, **terms)
    costs = {"cost_live_usd": cost[0], "cost_candidate_usd": cost[1]}
    return judge(accuracy, outcomes, log, terms=wanted, crossed=crossed, **costs)


def test_a_clear_gain_on_the_log_is_promoted():
    result = verdict(compared("outcomes", 0.0, 0.05), compared("log", 0.1, 0.04, odds=25))
    assert result.verdict is Verdict.PROMOTE
    assert (
        "log changes by +0.100 [+0.060, +0.140], and the evidence of a gain is 1.25 times what is asked"
        in result.reason
    )
    sure = verdict(compared("outcomes", 0.0, 0.05), compared("log", 0.1, 0.04, log_e=1000.0))
    assert "2.43e+07 times what is asked" in sure.reason, "what is larger is told as e^20"


@pytest.mark.parametrize("worse", ["accuracy", "outcomes", "log"])
def test_any_shown_loss_declines(worse):
    parts = {"accuracy": SAME, "outcomes": compared("outcomes", 0.0, 0.01), "log": compared("log", 0.1, 0.01)}
    parts[worse] = compared(worse, -0.2, 0.1)
    result = verdict(parts["outcomes"], parts["log"], accuracy=parts["accuracy"])
    assert result.verdict is Verdict.DECLINE
    assert result.reason.startswith(f"{worse} falls by 0.200")


def test_a_wide_interval_asks_for_more_and_says_how_many():
    result = verdict(compared("outcomes", 0.0, 0.01), compared("log", 0.05, 0.10))
    assert result.verdict is Verdict.NEED_MORE
    assert result.more_decisions == 1050  # 200 ((1.25 x 0.10 / 0.05)^2 - 1): half-widths fall with the root of n
    assert "the evidence of a gain is 0.05 times what is asked (20 to 1, and 15 to 1 without any" in result.reason
    assert (
        result.sentence
        == f"need more: {result.reason}: about 1,050 more decisions are needed, answered and rated as now"
    )
    unlucky = verdict(compared("outcomes", 0.0, 0.01), compared("log", 0.3, 0.10, odds=19))
    assert unlucky.more_decisions == pytest.approx(200 / 10, abs=1)


def test_a_dearer_candidate_needs_as_many_as_show_what_it_costs():
    """More than 0.02 is asked of a gain of 0.05: 200 ((1.25 x 0.10 / 0.03)^2 - 1)."""
    result = verdict(SAME, compared("log", 0.05, 0.10, least_gain=0.02))
    assert result.more_decisions == math.ceil(200 * ((0.125 / 0.03) ** 2 - 1))
    assert "the evidence of a gain above +0.020, for what it costs, is 0.05 times" in result.reason


def test_what_has_no_interval_neither_vetoes_nor_decides():
    for difference in (-0.5, 0.5):
        found = replace(SAME, difference=Metric(value=difference, n=200))
        assert verdict(found, None, accuracy=found).verdict is Verdict.NEED_MORE


def test_a_small_effective_sample_leaves_the_outcomes_to_decide():
    thin = compared("log", 0.5, 0.01, effective_n=3)
    assert verdict(compared("outcomes", 0.05, 0.01), thin).verdict is Verdict.PROMOTE
    assert verdict(compared("outcomes", 0.05, 0.2), thin).verdict is Verdict.NEED_MORE
    assert verdict(compared("outcomes", 0.05, 0.2), None).verdict is Verdict.NEED_MORE


def test_grades_and_the_log_decide_by_a_gain():
    same = compared("log", 0.0, 0.01, odds=19)
    assert verdict(compared("outcomes", 0.1, 0.01), same).verdict is Verdict.NEED_MORE
    result = verdict(compared("outcomes", 0.0, 0.01), None)
    assert result.verdict is Verdict.NEED_MORE
    assert "which does not show a gain" in result.reason


def test_grades_that_the_candidate_learned_from_veto_and_never_decide():
    learned = compared("outcomes", 0.3, 0.01, lacking="it was fitted on them")
    result = verdict(learned, None)
    assert result.verdict is Verdict.NEED_MORE
    assert "it was fitted on them" in result.reason
    assert verdict(learned, None, crossed=compared("crossed", 0.05, 0.01)).verdict is Verdict.PROMOTE
    unsure = verdict(learned, None, crossed=compared("crossed", -0.05, 0.1))
    assert unsure.verdict is Verdict.NEED_MORE
    assert [c.name for c in unsure.comparisons] == ["category accuracy", "outcomes", "crossed"]
    worse = compared("outcomes", -0.3, 0.01, lacking="it was fitted on them")
    assert verdict(worse, compared("log", 0.1, 0.01)).verdict is Verdict.DECLINE


def test_a_log_of_too_few_keys_leaves_the_grades_to_decide():
    few = compared("log", 0.3, 0.01, lacking="2 keys rated queries that would change hands, and 5 are needed")
    assert verdict(compared("outcomes", 0.05, 0.01), few).verdict is Verdict.PROMOTE
    result = verdict(compared("outcomes", 0.0, 0.1), few)
    assert (result.verdict, result.more_decisions) == (Verdict.NEED_MORE, None)
    assert "the log cannot decide: 2 keys rated" in result.reason
    assert "trusted_keys" in result.reason


def test_a_higher_cost_has_to_be_paid_for_by_a_shown_gain():
    def at(gain, cost):
        return verdict(compared("outcomes", gain, 0.01), None, cost=(0.001, 0.001 * cost))

    assert at(0.11, 1.45).verdict is Verdict.PROMOTE  # 0.1 is shown, half of what pays for twice the cost
    dear = at(0.11, 1.6)
    assert dear.verdict is Verdict.DECLINE
    assert "mean cost would rise from 0.001 to 0.0016 USD a query, and a shown gain of 0.100" in dear.reason
    assert at(0.005, 1.2).verdict is Verdict.DECLINE
    assert at(0.015, 1.005).verdict is Verdict.PROMOTE  # a hair is none
    assert verdict(compared("outcomes", 0.3, 0.01), None, cost=(0.0, 0.001)).verdict is Verdict.DECLINE


def test_what_only_a_model_can_judge_is_not_decided_by_the_log():
    guessed = compared("log", 0.3, 0.01, unsupported=0.4)
    result = verdict(compared("outcomes", 0.0, 0.2), guessed)
    assert result.verdict is Verdict.NEED_MORE
    assert result.more_decisions is None
    assert "the log cannot judge 40% of the queries that would change hands" in result.reason
    assert verdict(compared("outcomes", 0.05, 0.01), guessed).verdict is Verdict.PROMOTE
    little = compared("log", 0.05, 0.1, unsupported=0.05)
    assert verdict(compared("outcomes", 0.05, 0.01), little).more_decisions == 1050


def test_what_is_needed_is_said_in_decisions_of_the_whole_log():
    parts = compared("outcomes", 0.0, 0.1), compared("log", 0.05, 0.10)
    assert verdict(*parts, decisions_per_row=4.0).more_decisions == 4 * verdict(*parts).more_decisions


def test_a_thin_sample_needs_as_many_rows_as_make_it_thick():
    assert more_needed(compared("log", 0.5, 0.01, n=100, effective_n=5.0)) == 300
    assert more_needed(compared("log", 0.5, 0.01, n=100, effective_n=0.5)) == 3900


@pytest.mark.parametrize(
    "never", [{"difference": -0.05}, {"n": 0, "effective_n": 5.0}, {"effective_n": 0.0}, {"half_width": math.inf}]
)
def test_no_number_of_decisions_helps_a_loss_or_a_log_that_judges_nothing(never):
    assert more_needed(compared(**{"name": "log", "difference": 0.05, "half_width": 0.1} | never)) is None


def test_what_the_log_has_to_show_follows_the_cost():
    terms = Terms()
    assert terms.least_gain(0.001, 0.001) == 0
    assert terms.least_gain(0.001, 0.00101) == pytest.approx(0)  # a hair is none
    assert terms.least_gain(0.001, 0.00151) == pytest.approx(0.2 * 0.5)  # half of what pays for twice the cost
    assert terms.least_gain(0.001, 0.00094) == pytest.approx(-0.2 * 0.05)
    assert terms.least_gain(0.001, 0.0001) == -0.02  # no saving pays for more than the margin
    assert terms.least_gain(0.0, 0.001) == 1.0
    assert terms.least_gain(0.0, 0.0) == 0.0


@pytest.mark.parametrize(
    "terms",
    [{"margin": -0.001}, {"margin": 1.001}],
)
def test_terms_that_would_let_everything_or_nothing_pass_are_refused(terms):
    with pytest.raises(ValidationError, match=next(iter(terms))):
        Terms(**terms)
