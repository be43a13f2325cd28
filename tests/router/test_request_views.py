"""What a request is read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.router.reading.features import (
    ASK_ODDS,
    ASK_SLOPE,
    CLEAR_ODDS,
    MAX_ASK_CHARS,
    MAX_CANDIDATES,
    MAX_SENTENCE_CHARS,
    MIN_CHARS,
    SHAPES,
    TASK_SHARE,
    AskDetector,
    Reading,
    ask_candidates,
    candidate_shapes,
    known_letters,
    read_ask,
    read_task,
    reading_of,
    task_candidates,
    under_task,
    unknown_language,
)
from coe.router.types import CategoryProbs, DecisionReason, FloatArray, Query, QueryBatch, QueryFacts, View
from tests.gateway.small_router import small_router

ODDS_ALONE = np.array([0, 1, *[0] * 7], dtype=np.float32)
"""Of the shape, only by how much likelier a part asks than the whole."""

ASKING = AskDetector(np.array([8.0, 8.0], dtype=np.float32), -4.0, ODDS_ALONE, ASK_ODDS)
"""Texts with a colour ask for something, in the space of small_router's encoder."""

ROUTER = replace(small_router(), detector=ASKING)
STORY = "\n".join(f"The ferry left at {hour} and came back with nobody on board." for hour in range(5, 20))
PERSONA = "You are friendly. You never promise anything."


def sure(vector: FloatArray) -> float:
    return 1.0


@given(st.text(max_size=600))
def test_candidates_are_few_short_parts_of_the_text(text: str) -> None:
    found = ask_candidates(text)
    assert len(found) <= MAX_CANDIDATES
    assert all(0 < len(each) <= MAX_ASK_CHARS and each in text for each in found)
    assert len(set(found)) == len(found)
    assert not found or len(text) >= MIN_CHARS
    assert all(0 < len(each) <= MAX_SENTENCE_CHARS and each in text for each in task_candidates(text))


@pytest.mark.parametrize("gap", ["\n", "\n\n", "\n---\n", '\n"""\n', "\n```text\n"])
@pytest.mark.parametrize("ask", ["translate", "What does the writer complain about?", "要約してください"])
def test_an_ask_at_an_end_is_a_candidate(ask: str, gap: str) -> None:
    assert ask in ask_candidates(f"{ask}{gap}{STORY}")
    assert ask in ask_candidates(f"{STORY}{gap}{ask}")


def test_an_ask_amid_its_material_or_before_a_colon_is_a_candidate() -> None:
    assert "list the hours" in ask_candidates(f"{STORY}\n\nlist the hours\n\n{STORY}")
    line = STORY.replace("\n", " ")
    assert "Shorten this:" in ask_candidates(f"Shorten this: {line}")
    assert "Shorten it." in ask_candidates(f"{line} Shorten it.")


@given(st.text(max_size=MIN_CHARS - 1))
def test_a_short_message_keeps_its_vector_to_the_last_bit(text: str) -> None:
    plain = small_router()
    assert np.array_equal(ROUTER.embed(text), plain.embed(text))


def test_the_share_of_an_ask_is_how_much_likelier_it_asks_than_the_whole() -> None:
    vectors = np.array([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32)
    detector = AskDetector(np.array([2.0, 1.0], dtype=np.float32), 0.3, ODDS_ALONE, ASK_ODDS)

    def encode(texts: Sequence[str]) -> FloatArray:
        return np.concatenate([vectors[:1], np.repeat(vectors[1:], len(texts) - 1, axis=0)])

    share = 1 / (1 + np.exp(ASK_SLOPE * ((2 * 0.6 + 0.8) - 2.0)))  # the offsets cancel
    mixed = (1 - share) * vectors[0] + share * vectors[1]
    found = read_ask(f"{STORY}\n\nred", encode, detector)
    assert (found.view, found.part) == (View.UNCLEAR, "red")
    assert np.allclose(found.vector[0], mixed / np.linalg.norm(mixed), atol=1e-6)


def test_the_shape_of_a_candidate_is_where_it_stands_how_long_it_is_and_how_it_ends() -> None:
    text = "Is it red?\n\nThe sea.\nThe sun.\n\nShorten:"
    shapes = candidate_shapes(text, ["Is it red?", "The sea.\nThe sun.", "Shorten:"], np.array([0.5, 1.0, -1.0, 2.0]))
    long = np.log(len(text))
    expected = [
        [1.0, 0.5, np.log(10), long, 1, 0, 1, 0, 0],
        [-1.0, -1.5, np.log(17), long, 0, 0, 0, 0, 1],
        [2.0, 1.5, np.log(8), long, 0, 1, 0, 1, 0],
    ]
    assert np.allclose(shapes, expected)


@pytest.mark.parametrize(("odds", "view"), [(CLEAR_ODDS + 0.01, View.ASK), (CLEAR_ODDS - 0.01, View.UNCLEAR)])
def test_a_message_whose_likeliest_ask_is_hardly_one_is_unclear(odds: float, view: View) -> None:
    vectors = np.array([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32)
    detector = AskDetector(np.zeros(2, dtype=np.float32), 0.0, np.zeros(SHAPES, dtype=np.float32), odds)
    assert reading_of(f"{STORY}\n\nred", ["red"], vectors, detector).view is view


def test_an_ask_is_found_around_material_and_a_message_without_one_keeps_its_vector() -> None:
    assert np.allclose(ROUTER.embed(f"{STORY}\n\na red one"), ROUTER.embed("red"), atol=0.05)
    assert np.array_equal(ROUTER.embed(STORY), small_router().embed(STORY))


def test_a_task_in_the_system_prompt_counts_and_a_persona_does_not() -> None:
    task = read_task(f"{PERSONA} Paint what you get green.", ROUTER.encoder.encode, ASKING, sure)
    assert task is not None
    reading = under_task(task, Reading(ROUTER.embed("red")))
    green, red = float(reading.vector[0, 1]), float(reading.vector[0, 0])
    assert (green / red, reading.view) == (pytest.approx(TASK_SHARE / (1 - TASK_SHARE), rel=1e-4), View.TASK)
    assert read_task(PERSONA, ROUTER.encoder.encode, ASKING, sure) is None
    assert read_task("Paint it green.", ROUTER.encoder.encode, ASKING, lambda _: 0.1) is None
    assert read_task("Paint it green.", ROUTER.encoder.encode, None, sure) is None
    kept = Reading(ROUTER.embed("red"))
    assert under_task(None, kept) is kept
    assert task.part.endswith("Paint what you get green.")


def test_each_view_has_its_own_threshold() -> None:
    strict = replace(ROUTER.uncertainty, thresholds={View.TASK: -1.0})
    router, rng = replace(ROUTER, uncertainty=strict), np.random.default_rng(0)
    tasked = router.decide(Query("a", STORY, system="Paint it green."), rng=rng)
    assert (tasked.category, tasked.likely_category, tasked.view) == ("general", "green", View.TASK)
    assert tasked.threshold == -1.0
    assert router.decide(Query("b", "green"), rng=rng).category == "green"


def test_a_decision_is_made_again_from_its_vector_and_view() -> None:
    router = replace(ROUTER, uncertainty=replace(ROUTER.uncertainty, thresholds={View.UNCLEAR: -1.0}))
    query = Query("a", f"{STORY}\n\na red one")
    vector, _, view, _ = router.features(query)
    first = router.decide(query, rng=np.random.default_rng(1))
    again = router.decide(Query("a", "", QueryFacts(view=view)), rng=np.random.default_rng(1), embedding=vector)
    assert again == first
    assert first.category == "general"


KNOWN = frozenset(known_letters(2 * ["où est le café ?", "これは何ですか", "Straße und Übung", "где это"]).tolist())


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("what is it?", None),
        ("où est la Straße?", None),
        ("どこで会いますか 東京", None),
        ("ποιο είναι αυτό;", "greek"),
        ("Příští týden přijedu později", "latin"),
        ("Dvořák wrote nine symphonies; " + "the last is the one that is played most. " * 3, None),
        ("เมืองหลวงคืออะไร", "thai"),
        ("де ти їдеш і їси?", "cyrillic"),
        ("", None),
    ],
)
def test_a_language_is_unknown_by_letters_that_no_labelled_query_has(text: str, script: str | None) -> None:
    assert unknown_language(text, KNOWN) == script
    assert unknown_language(text, frozenset()) is None


def test_a_letter_of_one_query_may_be_a_name_and_is_not_known() -> None:
    assert known_letters(["Dvořák", "Dvorak", "two cars"]).tolist() == sorted(map(ord, "dvorak"))


def test_a_policy_names_who_serves_unknown_languages() -> None:
    plain = replace(ROUTER, letters=KNOWN)
    solved = replace(plain.policies["default"], unknown_languages=1)
    router = replace(plain, policies={"default": solved})
    rng = np.random.default_rng(0)
    assert plain.settings != router.settings
    as_usual = plain.decide(Query("a", "red, ποιο είναι"), rng=rng)
    assert (as_usual.category, as_usual.unknown_language) == ("red", "greek")
    query = Query("a", "red, ποιο είναι")
    found = router.decide(query, rng=rng)
    assert (found.category, found.likely_category, found.expert) == ("general", "red", router.experts[1])
    assert (found.reason, found.unknown_language) == (DecisionReason.PINNED, "greek")
    vector, _, view, language = router.features(query)
    batch = QueryBatch((query.read_from(view, language),), vector)
    assert router.decide_batch(batch, rng=rng)[0].expert == found.expert
    assert router.decide(Query("a", "red"), rng=rng).category == "red"


def test_a_part_of_a_request_is_classified_by_what_learned_parts() -> None:
    plain = small_router()
    order = plain.classifier.categories_
    reverse = np.eye(len(order), dtype=np.float32)[::-1]

    class Reversed:
        categories_ = order

        def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
            return CategoryProbs(order, plain.classifier.predict_proba(embeddings).probs @ reverse)

    router = replace(plain, part_classifier=Reversed())
    vectors = np.concatenate([plain.embed("red")] * 2)
    whole, part = router.predict_categories(vectors, [View.WHOLE, View.ASK]).probs
    assert np.allclose(whole, plain.predict_categories(vectors).probs[0])
    assert np.allclose(part, whole[::-1], atol=1e-6)
    for view, probs in ((View.WHOLE, whole), (View.TASK, part)):
        assert np.allclose(router.judge_one(vectors[:1], view).probs, probs, atol=1e-6)
