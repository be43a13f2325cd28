"""What a test looks at: gains that no draw biases, prompts that need no grade, and what is drawn next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.base.errors import ConfigError, InfeasibleBudgetError
from coe.eval.certify.certify import shown_plans
from coe.eval.certify.ladder import Choices, Ladder, build_ladder
from coe.eval.certify.units import (
    MIN_CHANCE,
    Drawn,
    Units,
    draw_chances,
    easier_only,
    grade_choices,
    in_columns,
    text_key,
    units_of,
)
from coe.router.build import configured_router
from coe.router.config.composition import load_config
from coe.router.config.policy import PolicyConfig, QualityFloor
from coe.router.model_files.artifact import load_artifact
from tests.eval.certify.certified_folder import RIGHT, certified_folder, grades, names


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Ladder:
    folder = certified_folder(tmp_path_factory.mktemp("certified"))
    config = load_config(folder / "experts.yaml")
    [version] = [path for path in (folder / "data" / "routers").iterdir() if path.is_dir()]
    artifact = load_artifact(version)

    def load(more):
        return configured_router(config.model_copy(update={"policies": config.policies | dict(more)}), artifact)

    found = build_ladder(load, "saver", config.policies)
    with pytest.raises(ConfigError, match=r"policies\.default: has no quality_floor"):
        build_ladder(load, "default", config.policies)
    dear = {"default": PolicyConfig(quality_floor=QualityFloor(within=0.0, of="small"))}
    with pytest.raises(ConfigError, match="no plan is predicted to be cheaper than small"):
        build_ladder(load, "default", dear)
    with pytest.raises(InfeasibleBudgetError, match=r"quality_floor\.within"):
        load({"more": PolicyConfig(quality_floor=QualityFloor(within=-0.9, of="strong"))})
    return found


def by_category(ladder: Ladder, prompts: list[str]) -> Choices:
    rows = np.array([ladder.router.categories.index(name.partition("-")[0]) for name in prompts])
    return Choices(ladder.by_row[rows], rows)


def test_plans_go_from_dear_to_cheap_below_what_they_are_compared_with(ladder: Ladder) -> None:
    assert ladder.of == "strong"
    price = [ladder.router.policy(name).predicted["cost_usd"] for name in (".reference", *ladder.names)]
    assert price == sorted(price, reverse=True)
    assert price[1] < 0.95 * price[0]
    assert ladder.floors[-1] == 0.01
    assert (ladder.by_row[:, 0] == 2).all()
    assert ladder.asked(0) == ["other", "small", "strong"]


def test_scores_and_prices_are_those_of_who_serves_and_of_all_who_are_asked(ladder: Ladder) -> None:
    prompts = names(100, 400)
    table, choices = in_columns(grades(prompts), ladder.router.experts), by_category(ladder, prompts)
    scores, spent = grade_choices(table, choices, ladder)
    np.testing.assert_array_equal(scores[:, 0], table.scores[:, 2])
    way = ladder.router.ways.strategy(int(ladder.by_row[0, 1]) - 3)
    one, other = way.probes
    same = table.answers[:, one] == table.answers[:, other]
    own = choices.choice[:, 1] >= 3
    np.testing.assert_array_equal(scores[own, 1], np.where(same, table.scores[:, one], table.scores[:, 2])[own])
    price = ladder.price[choices.row[0]]
    assert spent[own, 1][0] == pytest.approx(price[one] + price[other] + (0 if same[own][0] else price[2]))


def test_without_a_grade_of_somebody_who_is_asked_a_score_is_not_known(ladder: Ladder) -> None:
    prompts = names(100, 150)
    table = grades(prompts)
    lone = replace(table, experts=("small",), **{name: cells[:, :1] for name, cells in table.matrices.items()})
    scores, _ = grade_choices(in_columns(lone, ladder.router.experts), by_category(ladder, prompts), ladder)
    assert np.isnan(scores[:, :2]).all()


def test_where_answers_cannot_be_compared_one_expert_serves(ladder: Ladder) -> None:
    prompts = names(100, 120)
    table, choices = in_columns(grades(prompts), ladder.router.experts), by_category(ladder, prompts)
    assert (choices.choice[:, 1] >= 3).all()
    for answers in (None, np.full_like(table.answers, -2)):
        scores, _ = grade_choices(replace(table, answers=answers), choices, ladder)
        np.testing.assert_array_equal(scores[:, 1], table.scores[np.arange(len(prompts)), ladder.alone[choices.row, 1]])


def drawn_units(ladder: Ladder, prompts: list[str], chance: np.ndarray, seed: int) -> Units:
    is_drawn = np.random.default_rng(seed).random(len(prompts)) < chance
    lines = [
        Drawn(text=name, chance=float(p), least=float(chance.min()), is_drawn=bool(d), at="2026-01-01")
        for name, p, d in zip(prompts, chance, is_drawn, strict=True)
    ]
    at = np.where(is_drawn, np.arange(len(prompts)), -1)
    return units_of(lines, in_columns(grades(prompts), ladder.router.experts), at, by_category(ladder, prompts), ladder)


def test_the_mean_gain_and_saving_do_not_depend_on_what_is_drawn(ladder: Ladder) -> None:
    prompts = names(100, 500)
    full = drawn_units(ladder, prompts, np.ones(len(prompts)), 0)
    chance = np.where(np.arange(len(prompts)) % 3 == 0, 1.0, 0.6)
    some = [drawn_units(ladder, prompts, chance, seed) for seed in range(40)]
    gains = np.mean([units.gains.mean(axis=0) for units in some], axis=0)
    np.testing.assert_allclose(gains, full.gains.mean(axis=0), atol=0.006)
    savings = np.mean([units.saved.sum(axis=0) / units.base.sum() for units in some], axis=0)
    np.testing.assert_allclose(savings, full.saved.sum(axis=0) / full.base.sum(), atol=0.02)
    assert some[0].n_graded < full.n_graded == len(prompts)
    assert (some[0].gains >= -some[0].worst_loss[:, None]).all()
    assert some[0].worst_loss[0] == pytest.approx(1 / 0.6)


def test_units_end_before_the_first_grade_that_is_still_to_come(ladder: Ladder) -> None:
    prompts = names(100, 130)
    table, choices = in_columns(grades(prompts), ladder.router.experts), by_category(ladder, prompts)
    at = np.arange(len(prompts))
    at[7] = -1
    units = units_of([Drawn(text=name) for name in prompts], table, at, choices, ladder)
    assert len(units.gains) == 7
    whole = units_of([Drawn(text=name) for name in prompts], table, np.arange(len(prompts)), choices, ladder)
    assert units.fingerprint != whole.fingerprint
    nobody = units_of([], table, np.zeros(0, np.int64), Choices(choices.choice[:0], choices.row[:0]), ladder)
    assert shown_plans(nobody, 0.01)[1] == 0


def test_of_what_could_not_be_drawn_the_worst_is_assumed(ladder: Ladder) -> None:
    """A plan of a later router differs where none did when prompts were taken up."""
    prompts = names(100, 110)
    lines = [Drawn(text=name, chance=0.0, is_drawn=False) for name in prompts]
    table, choices = in_columns(grades(prompts), ladder.router.experts), by_category(ladder, prompts)
    units = units_of(lines, table, np.full(len(prompts), -1), choices, ladder)
    np.testing.assert_array_equal(units.gains, np.where(choices.differs, -1.0, 0.0))


def choices_of(*plans: tuple[int, ...], rows: tuple[int, ...]) -> Choices:
    """The reference serves everywhere by expert 9."""
    return Choices(np.column_stack([np.full(len(rows), 9), *plans]), np.array(rows, dtype=np.int64))


def test_what_is_drawn_is_where_gains_spread() -> None:
    new = choices_of((1, 1, 9), rows=(0, 1, 2))
    nothing_known = draw_chances(np.zeros((0, 1)), choices_of((), rows=()), new, 0)
    assert nothing_known.tolist() == [1.0, 1.0, 0.0]
    gains = np.repeat([[0.0], [1.0]], [200, 200], axis=0)
    known = draw_chances(gains, choices_of(tuple([1] * 400), rows=tuple([0] * 200 + [1] * 200)), new, 0)
    assert known.tolist() == [MIN_CHANCE, 1.0, 0.0]


def test_a_plan_that_is_dearer_and_no_easier_to_show_is_left_out(ladder: Ladder) -> None:
    prompts = names(0, 100)
    table, choices = in_columns(grades(prompts), ladder.router.experts), by_category(ladder, prompts)
    kept = easier_only(ladder, table, choices, 0.01)
    assert kept.names[-1] == ladder.names[-1]
    gains = np.diff(
        grade_choices(table, by_category(kept, prompts), kept)[0][:, [0, *range(1, len(kept.names) + 1)]], axis=1
    )
    assert len(gains) == len(prompts)
    alike = in_columns(grades(prompts, dict.fromkeys(RIGHT, 1.0)), ladder.router.experts)
    assert easier_only(ladder, alike, choices, 0.01).names == ladder.names[-1:]  # nothing is lost by the cheapest


def test_a_sequence_ends_at_the_first_plan_that_is_not_shown() -> None:
    good, bad = np.zeros((600, 1)), np.tile([[-1.0], [0.0]], (300, 1))
    for columns, n_shown in (((good, good, bad), 2), ((bad, good, good), 0), ((good, bad, good), 1), ((good,), 1)):
        gains = np.hstack(columns)
        units = Units(gains, np.ones(600), gains, np.ones(600), 600, "", "")
        assert shown_plans(units, 0.01)[1] == n_shown


def test_a_prompt_is_named_by_what_it_asks() -> None:
    assert text_key("What is 2 + 2?") == text_key("  what IS 2 + 2")
    assert text_key("What is 2 + 3?") != text_key("What is 2 + 2?")
