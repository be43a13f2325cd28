"""Twenty-odd numbers that tell texts apart by their looks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.surface_facts import FUNCTION_WORDS, QUESTION_WORDS, surface_facts

LANGUAGES = dict(zip(FUNCTION_WORDS, range(12, 16), strict=True))


@given(st.text())
def test_any_text_has_finite_numbers_of_one_shape(text: str) -> None:
    found = surface_facts(text)
    assert found.shape == (12 + len(FUNCTION_WORDS) + len(QUESTION_WORDS),)
    assert np.isfinite(found).all()
    assert (found >= 0).all()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("first\nsecond", 1),
        ("42", 2),
        ("A. red\nB. blue\n", 4),
        ("```python\nx = 1\n```", 5),
        ("3 + 4 = 7", 6),
        ("こんにちは", 7),
        ("¿Qué es?", 8),
        ("why?", 9),
    ],
)
def test_each_mark_is_seen(text: str, place: int) -> None:
    assert surface_facts(text)[place] > 0
    assert surface_facts("plain words only")[place] == 0


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "What is the capital of the country?"),
        ("es", "Escribe el nombre de los ríos que cruzan para mí"),
        ("fr", "Quelle est la taille des montagnes dans les Alpes et pour qui"),
        ("de", "Was ist der Name der Stadt und das Land"),
    ],
)
def test_function_words_tell_the_language(language: str, text: str) -> None:
    found = surface_facts(text)
    assert max(LANGUAGES, key=lambda name: found[LANGUAGES[name]]) == language
