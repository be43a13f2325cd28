"""Every family must keep numbers, code and quotations; each may change something else."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.robustness.families.typos import neighbours, slipped, variants
from benchmarks.robustness.flips import build_families, family_names, make_cases
from coe.base.errors import ConfigError

TEXT = 'Please convert 26.2 miles to km and explain `getName(x)` with "Hello World" to my friendly neighbour Anna.'
SQL = "Explain this query: SELECT name FROM users WHERE age > 18"
FENCED = "Refactor this function so that it works:\n```python\ndef addAll(xs):\n    return sum(xs)\n```\nwithout loops"

MATERIAL = ("12", "3.5", "kg", "GiB", '"Quoted Words"', "`some_code(x)`", "x=1;", "a/b/c", "foo()", "twelve", "数据")
PROSE = ("please", "Convert", "the", "number", "Anna,", "hello", "What", "naïve", "straße", "привет", "don't", "\n")
WORDS = st.sampled_from((*MATERIAL, *PROSE))
TEXTS = st.one_of(st.lists(WORDS, min_size=1, max_size=14).map(" ".join), st.text(max_size=80))


def of(family: str, text: str, seed: int = 0) -> dict[str, str]:
    return {case.template: case.text for case in make_cases(text, seed, build_families([family]))}


def test_there_are_the_six_families_that_were_promised():
    assert {"typos", "case", "padding", "rewording", "code_fences", "translated"} <= set(family_names())


def test_an_unknown_family_is_named_with_those_there_are():
    with pytest.raises(
        ConfigError, match=r"unknown family of perturbations 'typo'; did you mean 'typos'\? allowed: case"
    ):
        build_families(["typo"])


@pytest.mark.parametrize("family", family_names())
@settings(max_examples=60)
@given(text=TEXTS, seed=st.integers(0, 5))
def test_numbers_quotations_and_code_survive_and_a_seed_repeats(family, text, seed):
    built = build_families([family])
    cases = make_cases(text, seed, built)
    assert cases == make_cases(text, seed, built)
    for case in cases:
        assert case.text != text
        assert re.findall(r"\d+", case.text) == re.findall(r"\d+", text)
        for kept in re.findall(r'"[^"\n]+"|`[^`\n]+`', text):
            assert Counter(re.findall(re.escape(kept), case.text))[kept] >= 1


@pytest.mark.parametrize("family", ["padding", "rewording", "code_fences", "translated"])
@settings(max_examples=40)
@given(text=TEXTS)
def test_what_only_wraps_keeps_every_word(family, text):
    for case in make_cases(text, 0, build_families([family])):
        if case.template != "bare":
            assert not Counter(text.lower().split()) - Counter(re.sub("```", " ", case.text).lower().split())


@pytest.mark.parametrize("family", family_names())
def test_code_stays_as_it_is(family):
    for case in make_cases(SQL, 0, build_families([family])):
        assert "SELECT name FROM users WHERE age > 18" in case.text
    for case in make_cases(FENCED, 0, build_families([family])):
        assert "```python\ndef addAll(xs):\n    return sum(xs)\n```" in case.text


def test_cases_are_drawn_without_replacement_and_do_not_depend_on_other_families():
    every = make_cases(TEXT, 0, build_families(["case"]))
    drawn = make_cases(TEXT, 0, build_families(["case", "padding"]), per_family=2)
    assert len(every) == 4
    assert Counter(case.family for case in drawn) == {"case": 2, "padding": 2}
    assert {case for case in drawn if case.family == "case"} < set(every)
    assert drawn != make_cases(TEXT, 1, build_families(["case", "padding"]), per_family=2)


def test_a_typo_is_one_slip_in_one_word_of_ten():
    before = TEXT.split()
    for slip, text in of("typos", TEXT).items():
        changed = [(old, new) for old, new in zip(before, text.split(), strict=True) if old != new]
        assert len(changed) == 1
        old, new = changed[0]
        assert old[0] == new[0]
        assert len(new) - len(old) == {"swapped": 0, "left_out": -1, "beside": 0}[slip]


def test_the_rate_of_typos_is_the_share_of_words():
    text = " ".join(["convert", "several", "measures"] * 50)
    found = variants(text, np.random.default_rng(0)).values()
    changed = [sum(a != b for a, b in zip(text.split(), new.split(), strict=True)) for new in found]
    assert changed[0] >= 13  # two equal letters side by side cannot be swapped
    assert changed[1] == changed[2] == 15


@pytest.mark.parametrize(
    "text", ["17% of 3,480", "a b c do it", "SQL API JSON", "翻译这句话", "three hundred and seventy"]
)
def test_texts_without_a_word_to_mistype_have_no_typos(text):
    assert of("typos", text) == {}


def test_slips_are_those_of_fingers():
    rng = np.random.default_rng(0)
    assert {slipped("abc", "swapped", rng) for _ in range(20)} == {"acb"}
    assert slipped("aaaa", "swapped", rng) == "aaaa"
    assert set(neighbours("g")) == {"f", "h", "t", "y", "v", "b"}
    assert neighbours("é") == []


def test_case_changes_words_and_not_units():
    text = of("case", "Convert 250 GB to GiB, please")
    assert text == {
        "lower": "convert 250 GB to GiB, please",
        "upper": "CONVERT 250 GB TO GiB, PLEASE",
        "title": "Convert 250 GB To GiB, Please",
        "random": text["random"],
    }
    assert text["random"].lower() == "convert 250 gb to gib, please"


def test_lower_case_twice_is_lower_case():
    lowered = of("case", TEXT)["lower"]
    assert "lower" not in of("case", lowered)
    assert of("case", of("case", TEXT)["title"])["lower"] == lowered


def test_a_letter_that_has_no_way_back_keeps_its_case():
    assert of("case", "große Straße ıi")["upper"] == "GROßE STRAßE ıI"


def test_rewording_fits_the_grammar():
    asked = of("rewording", "Convert 5 miles to km")
    assert asked["could_you_please"] == "Could you please convert 5 miles to km"
    assert asked["task"] == "Task: Convert 5 miles to km"
    question = of("rewording", "What is {x}?")
    assert question["wondering"] == "I was wondering: What is {x}?"
    assert "task" not in question
    assert of("rewording", "Could you please sort this list")["bare"] == "Sort this list"


@pytest.mark.parametrize("family", ["rewording", "translated", "code_fences"])
def test_small_talk_is_not_made_a_task(family):
    assert of(family, "thanks, you are the best") == {}
    assert of(family, "danke dir!") == {}
    assert of(family, "Thanks for nothing. Which planet is the largest?") != {}


def test_fences_go_around_the_whole_or_around_what_a_colon_announces():
    fenced = of("code_fences", "Summarize this:\n\nBees carry pollen.\nFruit grows.")
    assert fenced["whole"] == "```\nSummarize this:\n\nBees carry pollen.\nFruit grows.\n```"
    assert fenced["material"] == "Summarize this:\n```\nBees carry pollen.\nFruit grows.\n```"
    assert of("code_fences", SQL)["code"] == "Explain this query:\n```\nSELECT name FROM users WHERE age > 18\n```"
    assert of("code_fences", FENCED) == {}


def test_an_instruction_in_another_language_stands_over_the_unchanged_text():
    framed = [of("translated", "What is 2 + 3?", seed) for seed in range(12)]
    assert all(text.endswith("\n\nWhat is 2 + 3?") for frames in framed for text in frames.values())
    assert len({language for frames in framed for language in frames}) >= 12
    assert any("Beantworte die folgende Frage:" in text for frames in framed for text in frames.values())
