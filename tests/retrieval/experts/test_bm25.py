from __future__ import annotations

import logging
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import ConfigError
from coe.retrieval.experts import bm25
from coe.retrieval.experts.bm25 import Bm25Expert, Options
from coe.retrieval.types import LexicalExpert
from coe.router.encoders.hashing import HashingEncoder

DOCUMENTS = ("The cat sat on the mat.", "Dogs are running in the fields", "A running cat and a cat", "", "!!!")


def expert(**options: object) -> Bm25Expert:
    return bm25.build(Options.model_validate(options))("words", HashingEncoder(8))


def test_scores_are_those_of_the_formula() -> None:
    """Kamphuis et al. 2020, Lucene: ln(1 + (N - df + 0.5) / (df + 0.5)) tf / (tf + k1 (1 - b + b l / avg))."""
    found = expert(language="none", stopwords="none").index(DOCUMENTS)
    rows, scores = found.search("cat", 10)
    lengths = [6, 6, 6, 0, 0]
    mean = sum(lengths) / len(lengths)
    idf = math.log(1 + (5 - 2 + 0.5) / (2 + 0.5))
    share = {2: 2, 0: 1}
    expected = [idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * 6 / mean)) for tf in share.values()]
    assert rows.tolist() == [2, 0]
    assert scores.tolist() == pytest.approx(expected, rel=1e-5)


def test_stems_meet_and_stop_words_do_not_count() -> None:
    index = expert().index(DOCUMENTS)
    rows = [index.search(text, 10)[0].tolist() for text in ("run", "the", "unheard of", "", "mats")]
    assert rows == [[1, 2], [], [], [], [0]]


def test_count_and_long_queries_are_cut() -> None:
    index = expert(max_query_words=1).index(DOCUMENTS)
    assert len(index.search("cat", 1)[0]) == 1
    assert index.search("dogs cat", 9)[0].tolist() == [1]
    assert index.search("cat", 0)[0].tolist() == []


def test_no_document_and_no_word_are_searched_in_vain() -> None:
    for texts in ((), ("", "?!")):
        assert expert().index(texts).search("cat", 5)[0].tolist() == []


def test_its_space_follows_what_changes_an_index() -> None:
    assert expert().space != expert(k1=0.9).space
    assert expert().space == expert(max_query_words=5).space
    assert expert().fingerprint != expert(max_query_words=5).fingerprint
    assert isinstance(expert(), LexicalExpert)


def test_a_language_without_a_stemmer_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no stemmer for language 'klingon'; allowed: any, none, .*english"):
        expert(language="klingon")


WORDS = st.lists(st.sampled_from(("cat", "dog", "fish", "bird", "ant")), max_size=7).map(" ".join)


@pytest.mark.parametrize(
    ("document", "query"),
    [
        ("北京是中华人民共和国的首都", "首都是哪里"),
        ("東京タワーは東京にある", "東京ﾀﾜｰ"),
        ("กรุงเทพเป็นเมืองหลวงของไทย", "เมืองหลวง"),
        ("서울은 대한민국의 수도이다", "수도는"),
        ("भारत की राजधानी नई दिल्ली है", "दिल्ली में"),
        ("Η πρωτεύουσα της Ελλάδας είναι η Αθήνα", "πρωτεύουσες"),
        ("Москва является столицей России", "столица"),
        ("عاصمة مصر هي القاهرة", "العاصمة"),
        ("Die Versicherungen zahlen", "Versicherung"),
        ("the insurance pays", "insured"),
    ],
)
def test_words_of_any_script_meet_in_their_stems(document: str, query: str) -> None:
    index = expert().index(["xyz", document, "völlig anderes 別のもの"])
    assert index.search(query, 5)[0].tolist() == [1]


def test_identifiers_and_numbers_are_not_cut() -> None:
    assert expert().words("E1234567 err_timeout_7 2024051 timeouts") == [
        "e1234567",
        "err_timeout_7",
        "2024051",
        "timeou",
    ]


def test_vowel_signs_belong_to_their_word_and_signs_without_spaces_go_in_pairs() -> None:
    assert expert(language="none").words("हिन्दी में 東京都 a") == ["हिन्दी", "में", "東京", "京都"]
    assert expert(language="none").words("都 ①") == ["都", "1"]


@given(st.lists(WORDS, min_size=1, max_size=6), WORDS, st.integers(0, 99))
def test_evidence_is_what_a_loop_over_words_counts(documents: list[str], query: str, seed: int) -> None:
    index = expert(language="none", stopwords="none").index(documents)
    rows = np.random.default_rng(seed).permutation(len(documents))[:4]
    found = index.evidence(query, rows)
    words = [word for word in query.split() if any(word in text.split() for text in documents)]
    df = {word: sum(word in text.split() for text in documents) for word in words}
    rarity = {word: math.log(1 + (len(documents) - df[word] + 0.5) / (df[word] + 0.5)) for word in words}
    pairs = set(pairwise(words))
    for row, (coverage, phrases, length) in zip(rows, found.tolist(), strict=True):
        text = documents[row].split()
        held = sum(rarity[word] for word in set(words) & set(text))
        assert coverage == pytest.approx(held / sum(rarity.values()) if rarity else 0.0, abs=1e-5)
        assert phrases == pytest.approx(len(pairs & set(pairwise(text))) / len(pairs) if pairs else 0.0, abs=1e-5)
        assert length == pytest.approx(math.log(1 + len(text)) / math.log(1001), abs=1e-5)


def test_evidence_is_for_each_row_and_stays_within_one() -> None:
    index = expert().index(("a cat runs " * 900, "a running cat", ""))
    found = index.evidence("cats running", np.array([2, 1, 0]))
    np.testing.assert_allclose(found[:, :2], [[0, 0], [1, 0], [1, 1]], atol=1e-6)
    assert found[0, 2] == 0.0
    assert found[2, 2] == 1.0
    assert expert().index(("", "?!")).evidence("cat", np.array([0, 1])).tolist() == [[0.0] * 3] * 2
    assert index.evidence("cat", np.array([], dtype=np.int64)).shape == (0, 3)


def test_making_an_index_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        expert().index(DOCUMENTS)
    assert caplog.records == []


def test_only_wanted_documents_are_found_and_count() -> None:
    index = expert().index(["cat", "cat dog", "cat cat", "dog"])
    rows, scores = index.search("cat", 1, np.array([True, True, False, True]))
    assert rows.tolist() == [0]
    assert scores[0] == index.search("cat", 9)[1][index.search("cat", 9)[0].tolist().index(0)]
    assert index.search("cat", 9, np.array([False, False, False, True]))[0].tolist() == []


@pytest.mark.parametrize("language", ["any", "greek"])
def test_word_without_a_stem_is_found_as_it_is(language: str) -> None:
    """The Greek stemmer leaves nothing of the word for "same"."""
    index = expert(language=language).index(("το ίδιο πλοίο", "ένα άλλο πλοίο"))
    assert index.search("ίδιο", 5)[0].tolist() == [0]
    assert expert(language=language).index(("ένα πλοίο",)).search("ίδιο πλοίο", 5)[0].tolist() == [0]
