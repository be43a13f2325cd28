"""Requests made of labelled queries, and the detector that is fitted with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from coe.router.encoders.hashing import Options, build
from coe.router.reading.features import AskDetector
from coe.router.types import Float64Array, View
from coe.training.composites import (
    COMPOSITES,
    MIN_ASKS,
    Pasted,
    fit_content,
    fit_shape,
    load_material,
    negative_examples,
    paste,
    read_composites,
)

ENCODER = build(Options(dim=256))
ASKS = [
    f"{verb} {thing}?"
    for verb in ("Could you translate", "How do I cook", "Please shorten", "What is the price of", "Find the bug in")
    for thing in ("this letter", "a goose", "the report", "my code", "an apple", "the poem", "two pumps", "the minutes")
]


def test_the_material_has_each_kind_and_personas() -> None:
    pieces, personas = load_material()
    assert len(pieces) >= 40
    assert len(personas) >= 20
    assert all(len(piece) >= 90 for piece in pieces)
    assert not set(negative_examples(pieces, personas)) & set(ASKS)


def test_the_detector_tells_asks_from_parts_that_it_has_not_seen() -> None:
    pieces, personas = load_material()
    weights, offset = fit_content(ENCODER.encode, ENCODER.encode(ASKS[::2]), pieces[::2], personas[::2])
    others = negative_examples(pieces[1::2], personas[1::2])
    unseen = ENCODER.encode([*ASKS[1::2], *others]) @ weights + offset
    labels = np.repeat([1, 0], [len(ASKS[1::2]), len(others)])
    assert roc_auc_score(labels, unseen) > 0.95


@pytest.mark.parametrize("seed", range(6))
def test_a_pasted_ask_keeps_its_words_and_all_of_the_material(seed: int) -> None:
    piece = load_material()[0][0]
    made = paste("shorten it", piece, np.random.default_rng(seed))
    assert made.count("shorten it") == 1
    assert set(piece.split()) <= set(made.split())


def test_composites_are_of_short_queries_and_of_both_views() -> None:
    long = "word " * 100
    texts = [*ASKS, long]
    detector, made = read_composites(ENCODER.encode, texts, ENCODER.encode(texts), np.random.default_rng(0))
    assert detector is not None
    assert made is not None
    assert {View.ASK, View.TASK} <= set(made.views) <= {View.ASK, View.UNCLEAR, View.TASK}
    assert len(made.vectors) == len(made.source) == len(made.views) <= 2 * min(COMPOSITES, len(ASKS))
    assert len(ASKS) not in made.source
    assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-5)


def test_few_short_queries_give_neither() -> None:
    texts = ASKS[: MIN_ASKS - 1]
    assert read_composites(ENCODER.encode, texts, ENCODER.encode(texts), np.random.default_rng(0)) == (None, None)


def test_the_ask_of_a_request_is_found_by_its_shape_too() -> None:
    """By their vectors alone, sentences of the material that look like asks are taken for it more often."""
    pieces, personas = load_material()
    rng = np.random.default_rng(3)
    content = fit_content(ENCODER.encode, ENCODER.encode(ASKS), pieces[::2], personas)
    seen, unseen = (
        [Pasted.of(ask, part, ENCODER.encode, rng, row) for row, ask in enumerate(ASKS)]
        for part in (pieces[1::4], pieces[3::4])
    )
    detector = AskDetector(*content, *fit_shape(seen, content))

    def found(odds: Callable[[Pasted], Float64Array]) -> int:
        return sum(each.candidates[int(odds(each).argmax())] == each.ask for each in unseen if each.candidates)

    by_both = found(lambda each: detector.ask_odds(each.text, each.candidates, each.vectors))
    assert by_both >= found(lambda each: detector.log_odds(each.vectors[1:]))
    assert by_both >= 0.8 * len(unseen)


def test_the_same_queries_give_the_same_composites() -> None:
    vectors = ENCODER.encode(ASKS)
    one, other = (read_composites(ENCODER.encode, ASKS, vectors, np.random.default_rng(3))[1] for _ in range(2))
    assert one is not None
    assert other is not None
    assert np.array_equal(one.vectors, other.vectors)
    assert one.views == other.views
