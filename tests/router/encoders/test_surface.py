"""Cue words: what counts as one, and where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.encoders import surface
from router.encoders._cues import CUES
from router.encoders.surface import MARKS, SCRIPTS, UNSPACED, Options, build, count_cues, mark_patterns, marks_in

TASKS = list(CUES)


def counts_of(text: str, opening: int = 40) -> tuple[dict[str, int], set[str]]:
    counts, opens = count_cues(text, opening)
    return {task: n for task, n in zip(TASKS, counts, strict=True) if n}, {
        task for task, is_in in zip(TASKS, opens, strict=True) if is_in
    }


def by_hand(text: str, opening: int) -> tuple[list[int], list[bool]]:
    """Stem by stem at every place."""
    text = text.replace("İ", "i").lower()
    counts, opens = [], []
    for words in CUES.values():
        stems = {stem.replace("_", " ").strip() for stem in words.lower().split()}
        at, count, is_open = 0, 0, False
        for start in range(len(text)):
            is_word = start == 0 or not (text[start - 1].isalnum() or text[start - 1] == "_")
            ends = [
                start + len(stem)
                for stem in stems
                if text.startswith(stem, start) and (is_word or UNSPACED.search(stem))
            ]
            is_open = is_open or any(end <= opening for end in ends)
            if ends and start >= at:
                count, at = count + 1, max(ends)
        counts.append(count)
        opens.append(is_open)
    return counts, opens


PIECES = [
    "sum",
    "total",
    "how much is",
    " ",
    "translate",
    "select",
    "İ",
    "计算",
    "翻译",
    "x",
    "_",
    "summar",
    "percent",
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=20), st.integers(0, 60))
def test_the_trie_finds_what_a_search_stem_by_stem_finds(pieces: list[str], opening: int) -> None:
    text = "".join(pieces)
    counts, opens = count_cues(text, opening)
    assert (counts, [bool(each) for each in opens]) == by_hand(text, opening)


MARKED = {
    "code_fence": ["```", "def f(", "a => b", "if a {", "a;", "<b>", "</b>", "run()", "#include", "import os"],
    "sql_words": ["Select a from b", "GROUP BY", "order by", "join", "where a = b", "where a > b"],
    "shell_marks": [
        "$ ls",
        "ls -a",
        "ls --all",
        "~/a",
        *(f"a.{end}" for end in ("log", "txt", "sh", "csv", "tar", "gz", "zip")),
    ],
    "expression": ["2 - 3", "2+3", "2 * 3", "2/3", "2 x 3", "2^3", "2 % 3", "= ?", "5%", "2 × 3", "√"],
    "unit": [f"{digit} KM" for digit in range(10)],
    "number_base": ["0xff", "0000", "0101", "1010", "1111", "0011"],
    "clock_or_date": ["12:30", "1/2/26", "1-2-26", "1.2.26", "5 pm", "5AM"],
    "money": ["$5", "5 $", "€ 5"],
    "json_marks": ["JSON", '[ "', '":'],
    "address": ["a@b", "http://", "https://", "+49 123456"],
    "quoted": ['"something"', ": \n", ": 'a", "«something»"],
    "label_list": ["a/b/c", "a, b or c", "a, b, o c", "a, b или c"],
    "question": ["a?", "؟"],
    "several_lines": ["a\nb\nc"],
    "list_lines": ["- a", "* a", "1. a", "1) a", "• a"],
    **dict(zip(SCRIPTS, [["你"], ["か"], ["한"], ["ж"], ["ع"], ["न"], ["ß"]], strict=True)),
}


@pytest.mark.parametrize("name", [*MARKS, *SCRIPTS])
def test_a_mark_is_found_in_each_of_its_forms_and_no_other_is(name: str) -> None:
    for text in MARKED[name]:
        found = dict(zip([*MARKS, *SCRIPTS], marks_in(text), strict=True))
        assert found[name], text
        assert list(found.values()) == [pattern.search(text) is not None for pattern in mark_patterns()]


def test_a_stem_begins_a_word_but_in_scripts_without_spaces() -> None:
    assert "arithmetic" in counts_of("The SUM of both")[0]
    assert "arithmetic" not in counts_of("no gypsum here")[0]
    assert "arithmetic" in counts_of("请计算一下")[0]


def test_the_opening_ends_where_it_is_told_to() -> None:
    assert counts_of("the sum", 7)[1] == {"arithmetic"}
    assert counts_of("the sum", 6)[1] == set()


@pytest.mark.parametrize("text", ["sum " * 5000, "a" * 100_000, "select " * 20_000])
def test_a_long_text_is_read_in_bounded_time(text: str) -> None:
    vector = build(Options()).encode([text])[0]  # the suite's own timeout fails a search that explodes
    np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-5)


def test_every_stem_is_found() -> None:
    for number, words in enumerate(CUES.values()):
        for stem in words.split():
            assert count_cues(stem.replace("_", " ").strip(), surface.OPENING_CHARS)[0][number], stem
