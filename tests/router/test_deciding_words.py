"""Which words of a request decided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.router.deciding_words import SHOWN, read_from
from coe.router.reading.normalise import shortened
from coe.router.types import Query
from tests.gateway.small_router import small_router
from tests.router.test_request_views import ROUTER, STORY


def test_the_words_that_decide_are_those_without_which_the_category_is_less_probable() -> None:
    found = read_from(small_router(), Query("a", "paint the red wall"))
    assert (found.text, list(found.words)) == ("paint the red wall", ["red"])
    assert 0 < found.words["red"] < 1


def test_words_are_those_of_the_ask_or_task_that_was_read() -> None:
    pasted = read_from(ROUTER, Query("a", f"{STORY}\n\npaint it red"))
    assert (pasted.text, list(pasted.words)) == ("paint it red", ["red"])
    tasked = read_from(ROUTER, Query("b", "the sea", system="Paint it green."))
    assert (tasked.text, list(tasked.words)) == ("Paint it green.", ["green"])


@pytest.mark.parametrize("text", ["", "...", "赤い壁", "red " * 5000])
def test_texts_without_words_and_long_ones_have_an_answer(text: str) -> None:
    assert len(read_from(small_router(), Query("a", text)).text) <= len(shortened("red " * 5000))


def test_the_end_of_a_long_text_counts() -> None:
    found = read_from(small_router(), Query("a", f"{'and so on ' * 100}paint the red wall"))
    assert list(found.words) == ["red"]


@given(st.text(max_size=80))
def test_few_words_of_the_text_itself_are_named(text: str) -> None:
    found = read_from(small_router(), Query("a", f"red {text}"))
    assert len(found.words) <= SHOWN
    assert all(word in found.text and fall >= 0 for word, fall in found.words.items())
