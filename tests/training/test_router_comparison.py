"""Evidence for the gate: whose loss it is, which rows count and for how much, who could have answered."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student_t

from coe.router.capabilities import Capabilities
from coe.router.preference import Preference
from coe.router.solved_policy import SolvedPolicy
from coe.router.types import CategoryProbs, FloatArray, Metric
from coe.training.change_points import ChangePoint
from coe.training.feedback_bias import UNLIMITED
from coe.training.gate import Comparison
from coe.training.log_answers import chance_matrix, choices_on
from coe.training.log_comparison import (
    LoggedPair,
    NewExperts,
    compare_new_experts,
    compare_on_log,
    doubly_robust_gains,
    judged_rows,
    too_few_keys,
)
from coe.training.log_table import FOLDS
from coe.training.router_comparison import CrossFitted, folds_of
from coe.training.types import LabelledQuery
from tests.gateway.small_router import CATEGORIES, EXPERTS, ColourClassifier, ColourEncoder, small_router
from tests.training.small_comparison import asked, log_table, mapping, outcomes, small_comparison


class RedClassifier(ColourClassifier):
    """Sees red everywhere."""

    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        return CategoryProbs(CATEGORIES, np.tile(np.float32([1, 0]), (len(embeddings), 1)))


def gains_of(
    category: list[str], expert: list[str], reward: list[float], chances: list[dict[str, float]], model: object
) -> tuple[np.ndarray, np.ndarray]:
    """Gains of a candidate that exchanges ruby and emerald, whose qualities are `model`."""
    propensity = np.array([own.get(name, 0.1) for own, name in zip(chances, expert, strict=True)])
    told = replace(asked(log_table(category, expert, reward, propensity=propensity)), chances=tuple(chances))
    comparison = small_comparison(mapping(red="emerald", green="ruby"))
    comparison.evidence.matrix.quality[:, :2] = model
    choices = [choices_on(router, told, EXPERTS) for router in (comparison.live, comparison.candidate)]
    logged, predicted = told.log.expert_in(comparison.experts), comparison.predicted_rewards(told)
    chance = chance_matrix(told, comparison.experts)
    return doubly_robust_gains(LoggedPair(told.log, choices, logged, predicted, chance))


def shown(comparison: Comparison) -> tuple[float, float, float]:
    return comparison.live.value, comparison.candidate.value, comparison.difference.value


def test_a_loss_of_accuracy_is_the_candidates_and_not_the_lives() -> None:
    """The candidate takes all for red, so of one red and three green queries it finds one; where its traffic has six
    red queries for each green one, these count for as much."""
    queries = [LabelledQuery(text, text, "plain", "en") for text in ("red", "green", "green", "green")]
    blind = replace(mapping(), classifier=RedClassifier())
    found = small_comparison(blind).on_labels(queries, ColourEncoder().encode([query.text for query in queries]))
    assert shown(found) == pytest.approx((1.0, 0.25, -0.75))
    assert found.high < 0
    mixed = small_comparison(replace(blind, mix=np.array([0.6, 0.1], np.float32)))
    weighted = mixed.on_labels(queries, ColourEncoder().encode([query.text for query in queries]))
    assert shown(weighted) == pytest.approx((1.0, 0.6 / (0.6 + 3 * 0.1), -1 / 3))


def test_a_loss_on_graded_prompts_is_the_candidates_and_not_the_lives() -> None:
    table = outcomes(("red", "red", "green"), [[0.9, 0.1, 0.0], [0.7, 0.3, 0.0], [0.0, 0.8, 0.0]])
    comparison, asked_for = small_comparison(mapping(red="emerald")), ColourEncoder().encode(table.texts)
    found = comparison.on_outcomes(table, asked_for, is_held_out=True)
    assert (found.name, found.lacking) == ("score on held-out outcomes", "")
    learned = comparison.on_outcomes(table, asked_for, is_held_out=False)
    assert (learned.name, learned.lacking) == (
        "score on graded outcomes",
        "the candidate was fitted on these grades",
    )
    assert shown(found) == pytest.approx(((0.9 + 0.7 + 0.8) / 3, (0.1 + 0.3 + 0.8) / 3, -1.2 / 3))


def test_a_missing_grade_counts_as_what_was_measured_of_its_category() -> None:
    """The candidate's expert was not graded on the green prompt: its measured quality there is 0.3."""
    table = outcomes(("red", "green"), [[0.9, 0.1, 0.0], [0.0, 0.8, np.nan]])
    comparison = small_comparison(mapping(green="plain"))
    comparison.evidence.matrix.quality[:, 2] = 0.1, 0.3, 0.7
    found = comparison.on_outcomes(table, ColourEncoder().encode(table.texts), is_held_out=True)
    assert shown(found) == pytest.approx(((0.9 + 0.8) / 2, (0.9 + 0.3) / 2, -0.5 / 2))


def test_a_loss_on_the_log_is_the_candidates_and_not_the_lives() -> None:
    """Ruby earned 1 and emerald 0 on red, each chosen half of the time, and the candidate wants emerald there."""
    log = log_table(["red"] * 40, ["ruby", "emerald"] * 20, [1.0, 0.0] * 20)
    found = compare_on_log(small_comparison(mapping(red="emerald")), asked(log), np.ones(40))
    assert shown(found.doubly_robust) == pytest.approx((1.0, 0.0, -1.0), abs=1e-9)


def test_the_logs_interval_is_widened_for_the_questions_and_not_for_their_repetition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six questions asked once or ten times each: the factor of six in both cases."""
    reward = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]

    def width(times: int) -> float:
        n = 6 * times
        log = log_table(["red"] * n, ["emerald"] * n, reward * times, question=np.arange(n) % 6)
        found = compare_on_log(small_comparison(mapping(red="emerald")), asked(log), np.ones(n)).doubly_robust
        assert found.effective_n == pytest.approx(n)
        return found.high - found.low

    wide = width(1)
    assert width(10) == pytest.approx(wide)
    monkeypatch.setattr("coe.training.log_comparison.widened", lambda metric, *_: metric)
    assert wide / width(1) == pytest.approx(student_t.ppf(0.975, 5) / norm.ppf(0.975) * (6 / 5) ** 0.5)


def test_the_effective_sample_is_counted_where_the_routers_differ() -> None:
    """Of a hundred answers only ten red ones are decided otherwise; five were given by the candidate's expert."""
    log = log_table(["red"] * 10 + ["green"] * 90, ["ruby", "emerald"] * 5 + ["emerald"] * 90, [1.0] * 100)
    found = compare_on_log(small_comparison(mapping(red="emerald")), asked(log), np.ones(100))
    assert found.doubly_robust.effective_n == pytest.approx(5)
    assert not found.doubly_robust.can_decide


def test_the_effective_sample_counts_shares_of_the_traffic() -> None:
    log = log_table(["red"] * 4, ["emerald"] * 4, [1.0] * 4)
    found = compare_on_log(small_comparison(mapping(red="emerald")), asked(log), np.array([3.0, 1.0, 1.0, 1.0]))
    assert found.doubly_robust.effective_n == pytest.approx(36 / 12)  # (3 + 1 + 1 + 1)^2 / (9 + 1 + 1 + 1)


def test_an_expert_that_was_ruled_out_is_chosen_by_nobody() -> None:
    log = log_table(["red", "green"], ["plain", "emerald"], [1.0, 1.0])
    found = choices_on(mapping(), asked(log, excluded=("ruby",)), EXPERTS)
    assert [EXPERTS[number] for number in found.chosen] == ["plain", "emerald"]  # the next best one for red
    assert found.serves.all()


def test_the_log_says_for_whom_a_request_was_too_long() -> None:
    log = log_table(["red", "green"], ["plain", "emerald"], [1.0, 1.0])
    told = replace(asked(log, excluded=("ruby",)), texts=("red " * 100, "green " * 100))
    short = replace(mapping(), capabilities=dict.fromkeys(EXPERTS, Capabilities(context_tokens=10)))  # by now
    found = choices_on(short, told, EXPERTS)
    assert [EXPERTS[number] for number in found.chosen] == ["plain", "emerald"]
    assert found.serves.all()


def test_a_query_that_the_candidates_policy_lets_nobody_serve_earns_nothing() -> None:
    """The candidate hosts ruby alone, which was down; it wants ruby all the same."""
    policy = SolvedPolicy(
        mapping().policy("default").solution, preference=Preference(np.zeros(3), np.array([True, False, False]))
    )
    candidate = replace(mapping(), policies={"default": policy})
    log = log_table(["red", "green"], ["plain", "emerald"], [1.0, 1.0])
    found = choices_on(candidate, asked(log, excluded=("ruby",)), EXPERTS)
    assert not found.serves.any()
    assert found.planned(np.ones((2, 3))).tolist() == [0.0, 0.0]
    assert [EXPERTS[number] for number in found.chosen] == ["ruby", "ruby"]
    up = choices_on(candidate, asked(log, excluded=("plain",)), EXPERTS)
    assert up.match(np.full(2, EXPERTS.index("ruby"))).tolist() == [1.0, 1.0]


def test_what_nobody_could_have_chosen_is_not_supported_by_the_log() -> None:
    """Of two categories whose expert changes, emerald was tried in one, if not from the beginning."""
    log = log_table(["red", "red", "general"], ["ruby"] * 3, [1.0] * 3)
    often, seldom = {"ruby": 0.5, "emerald": 0.5}, {"ruby": 0.996, "plain": 0.004, "emerald": 0.004}
    some = replace(asked(log), chances=(seldom, often, seldom))
    found = compare_on_log(small_comparison(mapping(red="emerald", general="ruby")), some, np.array([1.0, 1.0, 2.0]))
    assert found.doubly_robust.unsupported == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("first", "later", "newcomers"),
    [
        ({"ruby": 1.0}, {"ruby": 0.5, "emerald": 0.5}, ("emerald",)),
        ({"ruby": 1.0, "emerald": 0.0}, {"ruby": 0.5, "emerald": 0.5}, None),  # asleep, or pinned away
        ({"ruby": 1.0}, {"ruby": 1.0, "emerald": 0.0}, None),  # nothing is explored
    ],
)
def test_a_newcomer_was_not_known_at_first_and_could_be_chosen_later(
    first: dict[str, float], later: dict[str, float], newcomers: tuple[str, ...] | None
) -> None:
    log = log_table(["red"] * 40, ["ruby", "emerald"] * 20, [1.0] * 40)
    told, comparison = replace(asked(log), chances=(first, *(later,) * 39)), small_comparison(mapping(red="emerald"))
    found = compare_new_experts(comparison, told, np.ones(40), comparison.choices(told))
    assert (found.experts if found else None) == newcomers


@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_what_was_all_but_never_tried_may_be_anything(truth: float) -> None:
    """A tenth of the red answers was logged where emerald had one chance in a thousand. Nobody saw what it does there,
    so the interval has to hold the gain whichever it is: the model says 0.5, and ruby earned 0.5."""
    n = 400
    rare = np.arange(n) % 10 == 0
    expert = np.where(rare | (np.arange(n) % 2 == 1), "ruby", "emerald")
    reward = (np.arange(n) // 2 % 2).astype(float)
    log = log_table(["red"] * n, expert.tolist(), reward.tolist(), propensity=np.where(rare, 0.999, 0.5))
    often, seldom = {"ruby": 0.5, "emerald": 0.5}, {"ruby": 0.999, "emerald": 0.001}
    told = replace(asked(log), chances=tuple(seldom if own else often for own in rare))
    found = compare_on_log(small_comparison(mapping(red="emerald")), told, np.ones(n)).doubly_robust
    gain = 0.1 * (truth - 0.5)
    narrow = compare_on_log(small_comparison(mapping(red="emerald")), asked(log), np.ones(n)).doubly_robust
    assert found.unsupported == 0
    assert found.low <= gain <= found.high
    assert found.high - found.low == pytest.approx(narrow.high - narrow.low + 0.1, abs=0.02)


@pytest.mark.parametrize("model", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("chance", [0.5, 0.05, 0.006])
def test_a_gain_is_that_of_the_answers_whatever_the_model_believes(model: float, chance: float) -> None:
    """Emerald earns 0.2 and ruby 0.6: over all outcomes of a query, by their probability, the mean gain is -0.4.
    Weights that are cut would add the model's opinion."""
    mean = 0.0
    for name, p, rate in (("ruby", 1 - chance, 0.6), ("emerald", chance, 0.2)):
        for reward, odds in ((1.0, rate), (0.0, 1 - rate)):
            gains, lowest = gains_of(["red"], [name], [reward], [{"ruby": 1 - chance, "emerald": chance}], model)
            assert lowest[0] <= gains[0]
            mean += p * odds * gains[0]
    assert mean == pytest.approx(-0.4)


def test_answers_of_a_rare_try_count_for_less_and_their_category_for_as_much() -> None:
    """In one of two red answers emerald had a chance of 0.02, a tenth of what counts in full; green is as large."""
    often, seldom = {"ruby": 0.5, "emerald": 0.5}, {"ruby": 0.98, "emerald": 0.02}
    chances = [seldom, often, often, often]
    gains, _ = gains_of(["red", "red", "green", "green"], ["plain"] * 4, [0.0] * 4, chances, model=(0.2, 0.6))
    assert gains == pytest.approx([0.4 * 0.1 / 0.55, 0.4 * 1 / 0.55, -0.4, -0.4])


def test_rows_count_by_their_share_of_the_traffic() -> None:
    """Three quarters of the traffic are like the first of each pair: it earned 1 by ruby, the other one 0."""
    n = 80
    log = log_table(["red"] * n, ["ruby", "ruby"] * (n // 2), [1.0, 0.0] * (n // 2), propensity=np.ones(n))
    found = compare_on_log(small_comparison(mapping(), costs=(0.0, 0.0, 0.0)), asked(log), np.tile([3.0, 1.0], n // 2))
    assert found.doubly_robust.live.value == pytest.approx(0.75)


@pytest.mark.parametrize(("offset", "predicted"), [(0.2, 0.7), (0.7, 1.0), (-0.7, 0.0)])
def test_what_is_predicted_lies_on_the_scale_of_rewards(offset: float, predicted: float) -> None:
    comparison = small_comparison(mapping())
    told, shifted = asked(log_table(["red", "green"], ["ruby", "plain"], [1.0, 0.0])), comparison.evidence
    shifted = replace(shifted, reward_offset=offset)
    crossed = replace(comparison, cross_fitted=(CrossFitted(mapping(), shifted),) * FOLDS)
    for each in (replace(comparison, evidence=shifted), crossed):
        assert each.predicted_rewards(told) == pytest.approx(np.full((2, 3), predicted))


def test_mean_costs_count_rows_by_their_share_of_the_traffic() -> None:
    """Ruby costs 1 and emerald 5: the live router asks both, the candidate emerald for all."""
    log = log_table(["red", "green"], ["ruby", "emerald"], [1.0, 1.0])
    found = compare_on_log(
        small_comparison(mapping(red="emerald"), costs=(1.0, 5.0, 0.0)), asked(log), np.array([3.0, 1.0])
    )
    assert found.costs_usd == pytest.approx(((3 * 1 + 5) / 4, 5.0))


def test_where_nothing_was_judged_both_maps_cost_by_the_newest_lengths() -> None:
    """And by the newest mix, of which red is a third: an expert that was never measured costs what the others do."""
    comparison = small_comparison(mapping(red="emerald"), costs=(1.0, 5.0, 0.0))
    assert comparison.map_costs() == pytest.approx(((1 + 5 + 0) / 3, (5 + 5 + 0) / 3))


def test_whom_exploration_draws_is_not_compared_on_grades() -> None:
    """The candidate wants ruby for red, and explores two thirds of the queries."""
    comparison = small_comparison(replace(mapping(), policies={"default": small_router().policies["wild"]}))
    table = outcomes([f"red {i}" for i in range(30)], [(1.0, 0.0, 0.0)] * 30)
    found = comparison.on_outcomes(table, ColourEncoder().encode(table.texts), is_held_out=True)
    assert (found.live.value, found.candidate.value) == (1.0, 1.0)


def test_importance_weights_are_of_the_router_that_they_judge() -> None:
    """Of red answers one in four came from emerald; only those say what the candidate earns: 4 x 0.5 / 4."""
    log = log_table(
        ["red"] * 4, ["ruby"] * 3 + ["emerald"], [1.0, 1.0, 1.0, 0.5], propensity=np.array([0.75, 0.75, 0.75, 0.25])
    )
    found = compare_on_log(small_comparison(mapping(red="emerald"), quality=0.0), asked(log), np.ones(4))
    shown = found.doubly_robust
    assert (shown.live.value, shown.candidate.value) == pytest.approx((1.0, 0.5))


def test_what_is_left_of_a_changed_category_judges_for_all_of_its_traffic() -> None:
    """Emerald changed on green at second 5: its two later answers count for all four, weights included."""
    log = log_table(
        ["red", "red", "green", "green", "green", "green", "red"],
        ["ruby", "ruby", "emerald", "ruby", "emerald", "ruby", "ruby"],
        [1.0] * 7,
        at=np.array([0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0]),
        weight=np.array([1.0, 1.0, 0.5, 1.5, 2.0, 1.0, 1.0]),
    )
    rows, share = judged_rows(log, (ChangePoint("green", "emerald", 5.0, 0.9, 0.2),), small_comparison(mapping()))
    assert rows.tolist() == [0, 1, 4, 5, 6]
    assert share[rows] == pytest.approx([1.0, 1.0, 2.0 * 5 / 3, 1.0 * 5 / 3, 1.0])
    assert share[[4, 5]].sum() == pytest.approx(log.weight[2:6].sum())


def test_only_answers_of_experts_that_both_routers_know_judge() -> None:
    log = log_table(["red", "red", "green"], ["ruby", "emerald", "plain"], [1.0] * 3)
    narrow = replace(mapping(), experts=("ruby", "emerald"))
    rows, _ = judged_rows(log, (), small_comparison(narrow))
    assert rows.tolist() == [0, 1]


def test_a_newcomer_is_judged_by_the_answers_since_it_came_and_by_what_it_is_given() -> None:
    """Plain came after two answers. The candidate gives it red, green to ruby besides, and leaves it general. Of two
    answers of a category, each expert's own counts twice, and red ones are three times as frequent. The candidate lets
    nobody serve the first red query, which the model takes for 0.5, nor the first green one, which stays the live's."""
    log = log_table(
        ["red", "green", "red", "red", "green", "green", "general"],
        ["ruby", "emerald", "ruby", "plain", "emerald", "ruby", "plain"],
        [1.0, 1.0, 0.2, 0.9, 0.6, 0.1, 0.3],
    )
    before, since = {"ruby": 0.5, "emerald": 0.5}, dict.fromkeys(EXPERTS, 0.5)
    told, share = replace(asked(log), chances=(before,) * 2 + (since,) * 5), np.array([9.0, 9.0, 3, 3, 1, 1, 1])

    def found(**given: str) -> NewExperts | None:
        comparison = small_comparison(mapping(**given))
        live, candidate = comparison.choices(told)
        candidate.serves[[2, 4]] = False
        return compare_new_experts(comparison, told, share, (live, candidate))

    newcomers = found(red="plain", green="ruby")
    assert (newcomers.experts, newcomers.gain.level) == (("plain",), 0.1)
    same = 2 * 0.6 + 0.1  # the two green answers together, and the general one
    assert shown(newcomers.gain) == pytest.approx(((3 * 0.4 + same) / 9, (3 * 1.3 + same) / 9, 3 * 0.9 / 9))
    assert found(green="ruby") is None


@pytest.mark.parametrize(
    ("effective_n", "odds", "is_evident"), [(20.0, 10.1, True), (19.9, 10.1, False), (20.0, 9.9, False)]
)
def test_newcomers_are_evident_by_ten_to_one_on_enough_answers(
    effective_n: float, odds: float, is_evident: bool
) -> None:
    unknown = Metric(value=0.0)
    gain = Comparison("reward on the log", unknown, unknown, unknown, effective_n, log_e=math.log(odds), level=0.1)
    assert gain.is_evident is is_evident


@pytest.mark.parametrize(
    ("keys", "uncounted", "reason"),
    [
        ([0, 1, 2, 3, 4, 4], 0.05, ""),
        ([0, 1, 2, 3, 3, 3], 0.0, "4 keys rated queries that would change hands, and 5 are needed"),
        ([0, UNLIMITED], 0.0, ""),
        ([0, UNLIMITED], 0.06, "6% of the queries that would change hands are of categories that too few keys rated"),
    ],
)
def test_five_keys_judge_or_one_that_is_trusted(keys: list[int], uncounted: float, reason: str) -> None:
    n = len(keys)
    log = log_table(["red"] * n, ["ruby"] * n, [1.0] * n, key=np.array(keys), max_key_share=0.2)
    assert too_few_keys(log, uncounted) == reason


def test_the_first_key_is_limited_too() -> None:
    log = log_table(
        ["red"] * 4 + ["green"] * 4,
        ["ruby", "emerald"] * 4,
        [1.0] * 8,
        key=np.array([0] * 4 + [UNLIMITED] * 4),
        max_key_share=0.2,
    )
    found = compare_on_log(small_comparison(mapping(red="emerald")), asked(log), np.ones(8)).doubly_robust
    assert found.lacking == "1 keys rated queries that would change hands, and 5 are needed"
    assert found.difference.interval is None


def test_a_key_judges_no_more_than_its_share() -> None:
    """One key disliked thirty answers, ten others liked one each: at a fifth, the first counts for 2.5 of 12.5."""
    log = log_table(
        ["red"] * 40,
        ["ruby"] * 40,
        [0.0] * 30 + [1.0] * 10,
        propensity=np.ones(40),
        key=np.array([0] * 30 + list(range(1, 11))),
        max_key_share=0.2,
    )
    found = compare_on_log(small_comparison(mapping()), asked(log), np.ones(40))
    assert found.doubly_robust.live.value == pytest.approx(0.8)


def test_each_graded_prompt_is_decided_by_the_twin_that_has_not_seen_it() -> None:
    """The model without fold f wants one of the three experts, so every prompt tells by its score who decided it."""
    table = outcomes(
        [f"red {number}" for number in range(11)], [[row, row / 4, row / 9] for row in np.arange(1, 12) / 11]
    )
    wanted = [EXPERTS[fold % 3] for fold in range(FOLDS)]
    both = replace(
        small_comparison(mapping()),
        cross_fitted=tuple(CrossFitted(mapping(red=name), small_comparison(mapping()).evidence) for name in wanted),
    )
    folds = folds_of(table)
    found = both.crossed(table, ColourEncoder().encode(table.texts))
    expected = table.scores[np.arange(11), [EXPERTS.index(wanted[fold]) for fold in folds]].mean()
    assert (found.live.value, found.candidate.value) == pytest.approx((12 / 22, float(expected)))
