"""Requests made of labelled queries and material, as people paste it: they fit the detector of asks, and calibrate
stage 1 on what was pasted around an ask and on tasks of system prompts.

The material (material/pieces.txt) was written for this: mail, logs, code, tables, articles and chats in 17 languages,
and personas of assistants, which ask for nothing either.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coe.router.features import (
    MAX_ASK_CHARS,
    MAX_SENTENCE_CHARS,
    AskDetector,
    Encode,
    ask_candidates,
    read_ask,
    read_task,
    short_ones,
    task_candidates,
    under_task,
)
from coe.router.types import FloatArray, IntArray, View

MATERIAL = Path(__file__).with_name("material") / "pieces.txt"
PERSONA = "persona"
REGULARISATION = 3.0
"""C of the logistic regression; 1 to 10 found as many asks."""

MIN_ASKS = 20
"""Short labelled queries below which requests are read as a whole (ours)."""

COMPOSITES = 400
"""Of each view, of as many labelled queries at most: enough for a threshold, and some seconds to encode."""

BREAKS = ("\n\n", "\n", "\n\n---\n\n", '\n\n"""\n')


@dataclass(frozen=True)
class Composites:
    """Readings (c, d) of made requests; `source` (c,) is the labelled query of each, `views` (c,) what was read."""

    vectors: FloatArray
    source: IntArray
    views: tuple[View, ...]


def material() -> tuple[list[str], list[str]]:
    """Pieces of material, and personas."""
    pieces, personas = list[str](), list[str]()
    for head, text in re.findall(r"(?ms)^%% (\w+) \w+\n(.*?)(?=^%% |\Z)", MATERIAL.read_text(encoding="utf-8")):
        (personas if head == PERSONA else pieces).append(text.strip())
    return pieces, personas


def parts_that_ask_nothing(pieces: Sequence[str], personas: Sequence[str]) -> list[str]:
    """Negative examples for the detector: candidates and sentences of the material, and parts of personas."""
    sentences = (each for piece in pieces for each in re.split(r"(?<=[.?!。？！])\s*|\n+", piece))
    ends = (each for piece in pieces for each in ask_candidates(piece))
    of_personas = (each for persona in personas for each in task_candidates(persona))
    return short_ones([*ends, *sentences, *of_personas], MAX_SENTENCE_CHARS)


def fit_detector(encode: Encode, asks: FloatArray, pieces: Sequence[str], personas: Sequence[str]) -> AskDetector:
    """The detector of asks from embeddings (n, d) of short labelled queries, which all ask for something."""
    from sklearn.linear_model import LogisticRegression

    others = encode(parts_that_ask_nothing(pieces, personas))
    labels = np.repeat([1, 0], [len(asks), len(others)])
    model = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=500)
    model.fit(np.concatenate([asks, others]), labels)
    return AskDetector(model.coef_[0].astype(np.float32), float(model.intercept_[0]))


def read_composites(
    encode: Encode, texts: Sequence[str], embeddings: FloatArray, rng: np.random.Generator
) -> tuple[AskDetector | None, Composites | None]:
    """The detector of asks of labelled queries with embeddings (n, d), and requests made of them; None where too few of
    them are short.

    Requests are read by a detector that has not seen their material, so nothing is calibrated on what it was fitted on.
    """
    short = np.flatnonzero([0 < len(text) <= MAX_ASK_CHARS for text in texts])
    if len(short) < MIN_ASKS:
        return None, None
    pieces, personas = material()
    strange = fit_detector(encode, embeddings[short], pieces[::2], personas)
    made = make_composites(encode, strange, texts, short, pieces[1::2], rng)
    return fit_detector(encode, embeddings[short], pieces, personas), made


def make_composites(
    encode: Encode,
    detector: AskDetector,
    texts: Sequence[str],
    short: IntArray,
    pieces: Sequence[str],
    rng: np.random.Generator,
) -> Composites:
    """Requests of the short ones of labelled queries, read as a router reads them: with material around, and as the
    system prompt of a message that is material."""
    vectors, source, views = list[FloatArray](), list[int](), list[View]()
    for view in (View.ASK, View.TASK):
        for row in rng.permutation(short)[:COMPOSITES].tolist():
            piece = pieces[int(rng.integers(len(pieces)))]
            if view is View.ASK:
                reading = read_ask(pasted(texts[row], piece, rng), encode, detector)
            else:
                task = read_task(texts[row], encode, detector, lambda _: 1.0)
                reading = under_task(task, read_ask(piece, encode, detector))
            if reading.view is view:
                vectors.append(reading.vector[0])
                source.append(row)
                views.append(view)
    stacked = np.stack(vectors) if vectors else np.zeros((0, len(detector.weights)), dtype=np.float32)
    return Composites(stacked, np.array(source, dtype=np.int64), tuple(views))


def pasted(ask: str, piece: str, rng: np.random.Generator) -> str:
    """An ask with material after it, before it, or on both sides."""
    place, gap = int(rng.integers(3)), BREAKS[int(rng.integers(len(BREAKS)))]
    if place == 0:
        return f"{ask}{gap}{piece}"
    if place == 1:
        return f"{piece}{gap}{ask}"
    middle = piece.find("\n", len(piece) // 2) + 1 or len(piece) // 2
    return f"{piece[:middle].rstrip()}\n\n{ask}\n\n{piece[middle:].lstrip()}"


def detector_arrays(detector: AskDetector | None) -> dict[str, NDArray[np.generic]]:
    """For an artifact; none without a detector."""
    if detector is None:
        return {}
    return {"weights": detector.weights, "offset": np.array([detector.offset], dtype=np.float32)}
