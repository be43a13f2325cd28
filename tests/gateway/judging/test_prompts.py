"""Prompts of a judge, and the reading of its reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.gateway.chat.judge_prompts import (
    MAX_ANSWER_CHARS,
    conversation_text,
    grade_body,
    pair_body,
    read_choice,
    read_grade,
    swapped_preference,
)


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("7", 0.7),
        ("10", 1.0),
        ("0", 0.0),
        ("Grade: 8/10", 0.8),
        ("I would have said 3, but the second half is right: 6.", 0.6),
        ("Reasoning in 12 steps.\n**9**", 0.9),
        ("", None),
        ("excellent", None),
        ("11", None),
        ("-3", None),
        ("7.5", None),
    ],
)
def test_grades(reply, grade):
    assert read_grade(reply) == grade


@pytest.mark.parametrize(
    ("reply", "choice"),
    [("first", 1.0), ("Second.", 0.0), ("It is a TIE", 0.5), ("The first is longer, yet second", 0.0), ("A", None)],
)
def test_choices(reply, choice):
    assert read_choice(reply) == choice


@pytest.mark.parametrize(
    ("forward", "backward", "expected"),
    [
        (1.0, 0.0, (1.0, True)),  # the first answer both times
        (0.0, 1.0, (0.0, True)),
        (0.5, 0.5, (0.5, True)),
        (1.0, 1.0, (0.5, False)),  # the first place both times
        (0.5, 1.0, (0.5, False)),
    ],
)
def test_a_judge_that_contradicts_itself_says_nothing(forward, backward, expected):
    assert swapped_preference(forward, backward) == expected


@given(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_swapping_the_answers_swaps_the_preference(forward, backward):
    value, is_consistent = swapped_preference(forward, backward)
    assert swapped_preference(backward, forward) == (1.0 - value, is_consistent)


def test_long_texts_are_cut_and_the_order_is_kept():
    text = str(pair_body("ask", "x" * 50_000, "short", "be right"))
    assert len(text) < MAX_ANSWER_CHARS + 2000
    assert text.index("<<<FIRST") < text.index("<<<SECOND") < text.index("short") < text.index("be right")
    assert "<<<REQUEST\\nask" in str(grade_body("ask", "answer", "be right"))


def test_words_of_a_conversation():
    body = {
        "messages": [
            {"role": "system", "content": "be short"},
            {"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {}}]},
            {"role": "assistant", "content": None},
        ]
    }
    assert conversation_text(body) == "system: be short\n\nuser: what\n\nassistant: "
