"""Single changes to RouterRetriever, each with a row of its own in the report: what every idea is worth alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eval.retrieval.situation import Situation
from retrieval.routing.grouped_pilots import TIE, winners
from retrieval.routing.pilot_library import PilotLibrary
from retrieval.training.labels import Labelled
from retrieval.types import IntArray
from router.types import FloatArray

MEANING = {
    "pilot_weighted": "as published, with pilots weighted by group size and by the margin of the win",
    "pilot_source": "as published, with each collection's centroid as one more pilot of its own expert",
    "pilot_zscore": "as published, with each expert's score in standard deviations over the labelled queries",
    "pilot_safe": "as published, with base where the winner does not beat it on the labelled queries it is near",
}


class Pilots:
    """Centroids (p, d) with their experts' columns (p,) among k single experts, sizes and margins of win (p,)."""

    def __init__(self, library: PilotLibrary, columns: list[int]) -> None:
        scores, measured = library.scores[:, columns], library.measured[:, columns]
        labels = winners(scores, measured)
        ordered = np.sort(np.where(measured, scores, 0.0), axis=1)
        leads = ordered[:, -1] - ordered[:, -2] if len(columns) > 1 else np.ones(len(scores), dtype=np.float32)
        centres, owner, weight = [], [], []
        for data_set in np.unique(library.data_set):
            for expert in np.unique(labels[library.data_set == data_set]):
                rows = (library.data_set == data_set) & (labels == expert)
                centres.append(library.embeddings[rows].mean(axis=0))
                owner.append(int(expert))
                weight.append(float(rows.sum() * max(leads[rows].mean(), TIE)))
        self.centres = unit(np.array(centres))
        self.owner = np.array(owner, dtype=np.int64)
        self.weight = np.array(weight)

    def means(self, embeddings: FloatArray, experts: int, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, k) weighted mean similarity to each expert's pilots; -1 without any."""
        cosine = embeddings @ self.centres.T
        scores = np.full((len(embeddings), experts), -1.0)
        for expert in np.unique(self.owner):
            mine = self.owner == expert
            scores[:, expert] = cosine[:, mine] @ weight[mine] / weight[mine].sum()
        return scores


def unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def weighted(library: PilotLibrary, columns: list[int], embeddings: FloatArray) -> IntArray:
    pilots = Pilots(library, columns)
    return np.asarray(pilots.means(embeddings, len(columns), pilots.weight).argmax(axis=1), dtype=np.int64)


def with_source(library: PilotLibrary, columns: list[int], embeddings: FloatArray) -> IntArray:
    """The authors' own suggestion: the label of the winner, mixed with the data set's own expert."""
    pilots = Pilots(library, columns)
    names = [library.arms[column].members[0] for column in columns]
    for number in np.unique(library.data_set):
        name = library.manifest.data_sets[int(number)]
        if name in names:
            centre = unit(library.embeddings[library.data_set == number].mean(axis=0, keepdims=True))
            pilots.centres = np.concatenate([pilots.centres, centre])
            pilots.owner = np.append(pilots.owner, names.index(name))
    weight = np.ones(len(pilots.owner))
    return np.asarray(pilots.means(embeddings, len(columns), weight).argmax(axis=1), dtype=np.int64)


def z_scored(library: PilotLibrary, columns: list[int], embeddings: FloatArray) -> IntArray:
    pilots = Pilots(library, columns)
    weight = np.ones(len(pilots.owner))
    background = pilots.means(library.embeddings, len(columns), weight)
    spread = np.maximum(background.std(axis=0), 1e-6)
    scores = (pilots.means(embeddings, len(columns), weight) - background.mean(axis=0)) / spread
    scores[:, np.setdiff1d(np.arange(len(columns)), pilots.owner)] = -np.inf
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def safe(library: PilotLibrary, columns: list[int], embeddings: FloatArray) -> IntArray:
    """Base unless the winner's mean nDCG@10 beats base's on the queries of the nearest pilot's data set."""
    pilots = Pilots(library, columns)
    chosen = pilots.means(embeddings, len(columns), np.ones(len(pilots.owner))).argmax(axis=1)
    present = np.unique(library.data_set)
    centres = unit(np.stack([library.embeddings[library.data_set == number].mean(axis=0) for number in present]))
    means = np.stack([library.scores[library.data_set == number][:, columns].mean(axis=0) for number in present])
    nearest = (embeddings @ centres.T).argmax(axis=1)
    return np.where(means[nearest, chosen] > means[nearest, 0], chosen, 0)


CHOICES: dict[str, Callable[[PilotLibrary, list[int], FloatArray], IntArray]] = {
    "pilot_weighted": weighted,
    "pilot_source": with_source,
    "pilot_zscore": z_scored,
    "pilot_safe": safe,
}


def variant_scores(test: Labelled, situation: Situation) -> dict[str, FloatArray]:
    """Scores (n,) of every variant; none without a library."""
    if situation.library is None:
        return {}
    columns = situation.single_columns()
    chosen = {name: choose(situation.library, columns, test.embeddings) for name, choose in CHOICES.items()}
    return {name: test.scores[np.arange(len(test)), np.array(columns)[places]] for name, places in chosen.items()}
