"""Requests built from labelled queries and material, as people paste it. They fit the detector of asks, and calibrate
stage 1 on asks amid pasted text and on tasks of system prompts.

The material (material/pieces.txt) was written for this purpose. It has mail, logs, code, tables, articles and chats in
17 languages, and personas of assistants, which ask for nothing either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coe.router.reading.features import (
    MAX_ASK_CHARS,
    MAX_SENTENCE_CHARS,
    SENTENCE,
    AskDetector,
    Encode,
    Reading,
    ask_candidates,
    candidate_shapes,
    read_ask,
    read_task,
    reading_of,
    short_ones,
    task_candidates,
    under_task,
)
from coe.router.types import FloatArray, IntArray, View

MATERIAL = Path(__file__).with_name("material") / "pieces.txt"
PERSONA = "persona"
REGULARISATION = 3.0
"""Inverse regularisation C of the logistic regression; 1 to 10 found as many asks."""

MIN_ASKS = 20
"""Number of short labelled queries below which requests are read as a whole (ours)."""

COMPOSITES = 400
"""Largest number of labelled queries for each view: enough for a threshold, and some seconds to encode."""

BREAKS = ("\n\n", "\n", "\n\n---\n\n", '\n\n"""\n')


@dataclass(frozen=True)
class Composites:
    """Readings (c, d) of built requests; `source` (c,) is the labelled query of each, `views` (c,) the part read."""

    vectors: FloatArray
    source: IntArray
    views: tuple[View, ...]


def load_material() -> tuple[list[str], list[str]]:
    """Load the pieces of material, and the personas."""
    pieces, personas = list[str](), list[str]()
    for head, text in re.findall(r"(?ms)^%% (\w+) \w+\n(.*?)(?=^%% |\Z)", MATERIAL.read_text(encoding="utf-8")):
        (personas if head == PERSONA else pieces).append(text.strip())
    return pieces, personas


def negative_examples(pieces: Sequence[str], personas: Sequence[str]) -> list[str]:
    """Return negative examples for the detector: candidates and sentences of the material, and parts of personas."""
    sentences = (each for piece in pieces for each in SENTENCE.split(piece))
    ends = (each for piece in pieces for each in ask_candidates(piece))
    of_personas = (each for persona in personas for each in task_candidates(persona))
    return short_ones([*ends, *sentences, *of_personas], MAX_SENTENCE_CHARS)


def fit_content(
    encode: Encode, asks: FloatArray, pieces: Sequence[str], personas: Sequence[str]
) -> tuple[FloatArray, float]:
    """Fit the part of a detector that judges by a text's vector whether it asks for something.

    Args:
        asks: embeddings of short labelled queries, which all do, of shape (n, d).
    """
    others = encode(negative_examples(pieces, personas))
    labels = np.repeat([1, 0], [len(asks), len(others)])
    return logistic(np.concatenate([asks, others]), labels, C=REGULARISATION, class_weight="balanced", max_iter=500)


def logistic(rows: NDArray[np.floating], labels: IntArray, **options: Any) -> tuple[FloatArray, float]:
    """Fit a logistic regression on rows (n, d) and labels (n,); return its weights (d,) and offset."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(**options).fit(rows, labels)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def read_composites(
    encode: Encode, texts: Sequence[str], embeddings: FloatArray, rng: np.random.Generator, about: int = 0
) -> tuple[AskDetector | None, Composites | None]:
    """Fit the detector of asks on labelled queries with embeddings (n, d), and build requests of them; None if too few
    are short.

    Args:
        about: number of last texts that mean the material around them; all of these are pasted into some.

    A detector that has not seen their material reads the requests, so nothing is calibrated on what it was fitted on.
    """
    short = np.flatnonzero([0 < len(text) <= MAX_ASK_CHARS for text in texts])
    if len(short) < MIN_ASKS:
        return None, None
    pieces, personas = load_material()
    plain = short[short < len(texts) - about]  # with the others, orders in personas would be taken for tasks
    content = fit_content(encode, embeddings[plain], pieces[::2], personas)
    rows = rows_to_paste(short, len(texts) - about, rng)
    requests = [Pasted.of(texts[row], pieces[1::2], encode, rng, row) for row in rows.tolist()]
    if not any(each.ask in each.candidates for each in requests):
        return None, None
    strange = AskDetector(*content, *fit_shape(requests, content))
    read = [(each.source, reading_of(each.text, each.candidates, each.vectors, strange)) for each in requests]
    rows = rows_to_paste(short, len(texts) - about, rng)
    read += read_under_tasks(encode, strange, texts, rows, pieces[1::2], rng)
    final = fit_content(encode, embeddings[plain], pieces, personas)
    detector = AskDetector(*final, strange.shape, strange.shape_offset)
    return detector, composites_of([(row, reading) for row, reading in read if reading.view is not View.WHOLE])


def rows_to_paste(short: IntArray, plain: int, rng: np.random.Generator) -> IntArray:
    """Return some short texts of the first `plain`, in random order, and all that follow them."""
    return np.concatenate([rng.permutation(short[short < plain])[:COMPOSITES], short[short >= plain]])


class Pasted(NamedTuple):
    """A request with an ask amid material: its candidates, and the vectors (1 + c, d) of the request and of them."""

    text: str
    ask: str
    candidates: Sequence[str]
    vectors: FloatArray
    source: int

    @classmethod
    def of(cls, ask: str, pieces: Sequence[str], encode: Encode, rng: np.random.Generator, source: int) -> Pasted:
        """Build a request from an ask and a piece of material around it."""
        text = paste(ask, pieces[int(rng.integers(len(pieces)))], rng)
        candidates = ask_candidates(text)
        return cls(text, ask.strip(), candidates, encode([text, *candidates]), source)


def fit_shape(requests: Sequence[Pasted], content: tuple[FloatArray, float]) -> tuple[FloatArray, float]:
    """Fit the part of a detector that finds the candidate that is the ask."""
    weights, offset = content
    shapes = [
        candidate_shapes(each.text, each.candidates, (each.vectors @ weights + offset).astype(np.float64))
        for each in requests
    ]
    labels = np.array([part == each.ask for each in requests for part in each.candidates], dtype=np.int64)
    return logistic(np.concatenate(shapes), labels, max_iter=2000)


def read_under_tasks(
    encode: Encode,
    detector: AskDetector,
    texts: Sequence[str],
    rows: IntArray,
    pieces: Sequence[str],
    rng: np.random.Generator,
) -> Iterator[tuple[int, Reading]]:
    """Yield (row, reading) of a random piece under each text of `rows` as system prompt, if that is read as a task."""
    for row in rows.tolist():
        piece = pieces[int(rng.integers(len(pieces)))]
        if task := read_task(texts[row], encode, detector, lambda _: 1.0):
            yield row, under_task(task, read_ask(piece, encode, detector))


def composites_of(read: Sequence[tuple[int, Reading]]) -> Composites:
    """Collect readings with the rows of their labelled queries."""
    vectors = np.concatenate([reading.vector for _, reading in read])
    rows = np.array([row for row, _ in read], dtype=np.int64)
    return Composites(vectors, rows, tuple(reading.view for _, reading in read))


def paste(ask: str, piece: str, rng: np.random.Generator) -> str:
    """Paste an ask before, after or between the halves of a piece of material."""
    place, gap = int(rng.integers(3)), BREAKS[int(rng.integers(len(BREAKS)))]
    if place == 0:
        return f"{ask}{gap}{piece}"
    if place == 1:
        return f"{piece}{gap}{ask}"
    middle = piece.find("\n", len(piece) // 2) + 1 or len(piece) // 2
    return f"{piece[:middle].rstrip()}\n\n{ask}\n\n{piece[middle:].lstrip()}"


def detector_arrays(detector: AskDetector | None) -> dict[str, NDArray[np.generic]]:
    """Return the detector's arrays for an artifact; none without a detector."""
    if detector is None:
        return {}
    offsets = np.array([detector.offset, detector.shape_offset], dtype=np.float32)
    return {"weights": detector.weights, "shape": detector.shape, "offsets": offsets}
