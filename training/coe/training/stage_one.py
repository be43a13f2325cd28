"""Stage 1: its classifier, calibrated on queries that it was not fitted on, for the traffic's mix of categories.

Shapes: n labelled queries, d dimensions, k categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from coe.base.errors import DataError
from coe.base.shares import calibration_error, wilson_interval
from coe.cli.progress import Progress
from coe.router import plugins
from coe.router.protocols import CategoryClassifier, ClassifierOf, Encoder
from coe.router.quality import QualityMatrix
from coe.router.reading.uncertainty import Uncertainty, apply_temperature, calibrated
from coe.router.section import PluginConfig
from coe.router.types import GENERAL, BoolArray, FloatArray, IntArray, Metric
from coe.training.calibrate import (
    RECOGNISED,
    augment_new_categories,
    fit_temperature,
    fit_uncertainty,
    is_new,
    median_size,
    select_new_examples,
    with_ood_queries,
)
from coe.training.category_mix import AskedQueries, CategoryMix, estimate_mix, reweight
from coe.training.composites import Composites
from coe.training.types import LabelledQuery, OutcomeTable


@dataclass(frozen=True)
class FitRequest:
    """The request of a fit. `experts` are the columns of `evidence`. Without `is_holding_out` every query is trained
    on and the manifest has no figures: for a caller with its own test set."""

    encoder_config: PluginConfig
    classifier: PluginConfig
    scorer: PluginConfig
    categories: tuple[str, ...]
    experts: tuple[str, ...]
    evidence: QualityMatrix
    alpha: float
    data_fingerprints: Mapping[str, str]
    parents: tuple[str, ...] = ()
    is_holding_out: bool = True
    outcomes: OutcomeTable | None = None
    """Graded queries that a learned scorer is fitted on; None leaves the map."""
    asked: AskedQueries | None = None
    """Queries of the log, whose mix of categories stage 1's prior follows; None: that of the labelled queries."""
    about_material: tuple[LabelledQuery, ...] = ()
    """Asks that mean the material around them, such as "tldr". Alone they belong to `general`, so they teach only
    the classifier of an ask or a task beside material."""
    is_traffic: bool = False
    """True if the labelled queries sample the traffic: a category's mass is then the share that it serves."""


FAMILY = "router.classifiers"
BATCH_SIZE = 512
FOLDS = 10
"""Number of folds: classifiers of nine tenths doubt almost as the served one does. With five, 2% fewer were
accepted."""


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Embeddings (n, d) and category numbers (n,), k for queries that belong to `general`."""

    embeddings: FloatArray
    labels: IntArray

    def take(self, keep: BoolArray) -> LabelledEmbeddings:
        """Select queries by a mask (n,)."""
        return LabelledEmbeddings(self.embeddings[keep], self.labels[keep])

    def joined(self, others: LabelledEmbeddings) -> LabelledEmbeddings:
        """Return these queries, then the others."""
        both = np.concatenate([self.embeddings, others.embeddings])
        return LabelledEmbeddings(both, np.concatenate([self.labels, others.labels]))


@dataclass(frozen=True)
class StageOne:
    """A fitted classifier with its calibration. `state` are its arrays, `uncertainty` those of the uncertainty.

    `part_state` are the arrays of the classifier of asks and tasks beside material; empty: `classifier` reads those.
    `unseen` (n, k) are calibrated probabilities of all queries by classifiers that were not fitted on them. `mix` is
    the traffic's mix of categories, if its queries were read.
    """

    classifier: CategoryClassifier
    state: dict[str, NDArray[np.generic]]
    temperature: float
    uncertainty: dict[str, NDArray[np.generic]]
    unseen: FloatArray
    mix: CategoryMix | None = None
    part_state: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)

    def probs(self, embeddings: FloatArray) -> FloatArray:
        """Return calibrated probabilities (n, k), for the traffic's mix if it has moved."""
        raw = self.classifier.predict_proba(embeddings).probs
        return calibrated(raw, self.temperature, None if self.mix is None else self.mix.ratio)

    def is_sure(self, embeddings: FloatArray, probs: FloatArray, alpha: float) -> BoolArray:
        """Return which queries with calibrated probabilities (n, k) are not sent to `general`, of shape (n,)."""
        doubt = Uncertainty.from_state(self.uncertainty, alpha=alpha)
        return np.asarray(doubt.score(embeddings, probs) <= doubt.threshold)


def embed(encoder: Encoder, texts: Sequence[str], progress: Progress) -> FloatArray:
    """Encode many texts, with a progress line per batch; return vectors of shape (n, d)."""
    parts = []
    for start in range(0, len(texts), BATCH_SIZE):
        parts.append(encoder.encode(texts[start : start + BATCH_SIZE]))
        progress(f"encoded {min(start + BATCH_SIZE, len(texts))} of {len(texts)} queries")
    return np.concatenate(parts) if parts else np.zeros((0, encoder.dim), dtype=np.float32)


def label_numbers(queries: Sequence[LabelledQuery], categories: Sequence[str]) -> IntArray:
    """Return category numbers (n,), k for `general`; raise DataError if a category is not listed or has no query."""
    number = {name: i for i, name in enumerate(categories)} | {GENERAL: len(categories)}
    unknown = {query.category for query in queries} - set(number)
    if unknown:
        raise DataError(
            f"labelled queries name unknown categories {sorted(unknown)}; allowed: {', '.join(sorted(number))}"
        )
    labels = np.array([number[query.category] for query in queries], dtype=np.int64)
    empty = [name for i, name in enumerate(categories) if not (labels == i).any()]
    if empty:
        raise DataError(
            f"no labelled query for category {', '.join(empty)}: add some under `examples` in experts.yaml or in a "
            "folder of --queries, or remove it"
        )
    return labels


def served_shares(stage: StageOne, embeddings: FloatArray, alpha: float) -> FloatArray:
    """Return the share of queries (n, d) served as each category (k+1,), by classifiers that have not seen them.

    A query that falls back counts for `general`, whatever its label: a budget is spent where queries go.
    """
    k, is_sure = stage.unseen.shape[1], stage.is_sure(embeddings, stage.unseen, alpha)
    counts = np.bincount(np.where(is_sure, stage.unseen.argmax(axis=1), k), minlength=k + 1)
    counts = np.maximum(counts, 1)
    return np.asarray(counts / counts.sum(), dtype=np.float32)


def new_categories_of(request: FitRequest, labels: IntArray) -> BoolArray:
    """Return which categories have only a few examples, by labels (n,), of shape (k,). None is new if the labelled
    queries are a sample of the traffic, because there a small category is a rare one."""
    k = len(request.categories)
    return is_new(labels[labels < k], k) & (not request.is_traffic)


def recognised_shares(stage: StageOne, data: LabelledEmbeddings, request: FitRequest) -> dict[str, Metric]:
    """Measure for each category of few examples the share that stage 1 serves as it when it has not seen them."""
    is_sure = stage.is_sure(data.embeddings, stage.unseen, request.alpha)
    right = is_sure & (stage.unseen.argmax(axis=1) == data.labels)
    new = new_categories_of(request, data.labels)
    return {
        f"{RECOGNISED}{name}": wilson(int(right[data.labels == i].sum()), int((data.labels == i).sum()))
        for i, name in enumerate(request.categories)
        if new[i]
    }


def fit_stage_one(
    data: LabelledEmbeddings,
    request: FitRequest,
    rng: np.random.Generator,
    made: Composites | None = None,
    about: LabelledEmbeddings | None = None,
) -> StageOne:
    """Fit the classifier on all of `data`. Temperature and uncertainty use out-of-fold probabilities, so nothing is
    calibrated on what it was fitted on.

    Args:
        made: requests from rows of `data`, then of `about`, on which the thresholds of their views are found.
        about: asks that mean the material around them.
    """
    known = data.labels < len(request.categories)
    inside = data.take(known)
    options = plugins.validate_options(FAMILY, request.classifier.kind, request.classifier.options)
    if (choose := getattr(plugins.load(FAMILY, request.classifier.kind), "choose", None)) is not None:
        options = choose(options, inside.embeddings, inside.labels)
    grown = None if request.asked is None else self_training_examples(request, options, inside, request.asked)
    folds = stratified_folds(inside.labels, rng)
    out_of_fold = np.zeros((int(known.sum()), len(request.categories)), dtype=np.float32)
    parts = [fit_classifier(request, options, inside.take(folds != fold), grown)[0] for fold in range(FOLDS)]
    for fold, part in enumerate(parts):
        out_of_fold[folds == fold] = part.predict_proba(inside.embeddings[folds == fold]).probs
    classifier, state = fit_classifier(request, options, inside, grown)
    temperature = fit_temperature(out_of_fold, inside.labels)
    outside = classifier.predict_proba(data.embeddings[~known]).probs
    unseen = np.zeros((len(known), len(request.categories)), dtype=np.float32)
    unseen[known], unseen[~known] = out_of_fold, outside
    uncertainty = fit_uncertainty(
        reference=inside.embeddings,
        others=data.embeddings[~known],
        probs=np.concatenate([out_of_fold, outside]),
        is_correct=np.concatenate([out_of_fold.argmax(axis=1) == inside.labels, np.zeros(len(outside), dtype=bool)]),
        temperature=temperature,
        rng=rng,
    )
    unseen = apply_temperature(unseen, temperature)
    uncertainty = with_ood_queries(uncertainty, unseen, data.labels, new_categories_of(request, data.labels))
    judges, labels, part_state = np.full(len(known), FOLDS), data.labels, dict[str, NDArray[np.generic]]()
    judges[known] = folds
    readers = [*parts, classifier]
    if about is not None and len(about.labels):
        folds_about = stratified_folds(about.labels, rng)
        taught = [inside.take(folds != fold).joined(about.take(folds_about != fold)) for fold in range(FOLDS)]
        fitted = [fit_classifier(request, options, each, grown) for each in (*taught, inside.joined(about))]
        readers, part_state = [each for each, _ in fitted], fitted[-1][1]
        judges, labels = np.append(judges, folds_about), np.append(labels, about.labels)
    if made is not None:
        uncertainty |= composite_scores(made, readers, judges, labels, temperature, uncertainty)
    return StageOne(classifier, state, temperature, uncertainty, unseen, part_state=part_state)


def composite_scores(
    made: Composites,
    classifiers: Sequence[CategoryClassifier],
    judges: IntArray,
    labels: IntArray,
    temperature: float,
    uncertainty: Mapping[str, NDArray[np.generic]],
) -> dict[str, NDArray[np.generic]]:
    """Return, for each view, the uncertainty of its composites and whether they are classified right. Each is judged
    by the classifier that has not seen its query: `judges` (n,) for labels (n,) of the queries."""
    doubt, found = Uncertainty.from_state(uncertainty, alpha=1.0), dict[str, NDArray[np.generic]]()
    probs = np.zeros((len(made.source), len(classifiers[0].categories_)), dtype=np.float32)
    for number, classifier in enumerate(classifiers):
        own = judges[made.source] == number
        if own.any():
            probs[own] = classifier.predict_proba(made.vectors[own]).probs
    probs = apply_temperature(probs, temperature)
    scores, right = doubt.score(made.vectors, probs, made.views), probs.argmax(axis=1) == labels[made.source]
    for view in sorted(set(made.views)):
        own = np.array([each is view for each in made.views], dtype=bool)
        found |= {f"{view}_scores": scores[own], f"{view}_correct": right[own].astype(np.uint8)}
    return found


def self_training_examples(
    request: FitRequest, options: BaseModel, inside: LabelledEmbeddings, asked: AskedQueries
) -> LabelledEmbeddings | None:
    """Return logged queries of new categories that a classifier of the labelled ones is sure of (self-training,
    Scudder 1965); None if no category is new. They teach the classifier, and calibrate nothing."""
    new = new_categories_of(request, inside.labels)
    if not new.any() or not len(asked.cluster):
        return None
    probs = fit_classifier(request, options, inside)[0].predict_proba(asked.embeddings).probs
    rows, labels = select_new_examples(probs, new, asked.cluster)
    return LabelledEmbeddings(asked.embeddings[rows], labels)


def follow_traffic(
    stage: StageOne, data: LabelledEmbeddings, request: FitRequest, rng: np.random.Generator
) -> StageOne:
    """Return stage 1 with the traffic's mix of categories as its prior, if the log shows that the mix has moved.
    Uncertainty and its threshold are then those of such traffic."""
    if request.asked is None:
        return stage
    asked, probs = request.asked, stage.probs(request.asked.embeddings)
    kept = stage.is_sure(asked.embeddings, probs, request.alpha)
    counts = label_counts(stage, data, request)
    mix = estimate_mix(probs[kept], asked.cluster[kept], asked.weight[kept], counts, rng)
    if mix is None or mix.ratio is None:
        return replace(stage, mix=mix)
    unseen, uncertainty = reweight(stage.unseen, data.labels, stage.uncertainty, mix.ratio)
    new = new_categories_of(request, data.labels)
    uncertainty = with_ood_queries(uncertainty, unseen, data.labels, new, mix.ratio)
    return replace(stage, mix=mix, unseen=unseen, uncertainty=uncertainty)


def label_counts(stage: StageOne, data: LabelledEmbeddings, request: FitRequest) -> IntArray:
    """Count the labelled queries of each category, and those that stage 1 is sure of, (2, k). They are weighted as
    in the classifier, where a new category has median size."""
    k = stage.unseen.shape[1]
    known = data.labels < k
    is_sure, labels = stage.is_sure(data.embeddings, stage.unseen, request.alpha)[known], data.labels[known]
    own = np.bincount(labels, minlength=k)
    times = np.where(new_categories_of(request, labels), median_size(labels) / np.maximum(own, 1), 1.0)
    return np.stack([own * times, np.bincount(labels[is_sure], minlength=k) * times]).astype(np.int64)


def fit_classifier(
    request: FitRequest, options: BaseModel, data: LabelledEmbeddings, grown: LabelledEmbeddings | None = None
) -> tuple[CategoryClassifier, dict[str, NDArray[np.generic]]]:
    """Fit a classifier of the requested kind; return it with its arrays. `grown` are `self_training_examples`."""
    k, taught = len(request.categories), data if grown is None else data.joined(grown)
    new = new_categories_of(request, data.labels)
    if new.any():
        spread = augment_new_categories(taught.embeddings, taught.labels, new, np.random.default_rng(0))
        taught = taught.joined(LabelledEmbeddings(*spread))
    kind = plugins.load(FAMILY, request.classifier.kind)
    state = kind.fit(options, taught.embeddings, taught.labels, k)
    return cast(ClassifierOf, kind.build(options))(request.categories, state), state


def stratified_folds(labels: IntArray, rng: np.random.Generator) -> IntArray:
    """Return fold numbers (n,), each category spread evenly, so that every fold's training part has every category."""
    folds = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        folds[rng.permutation(members)] = np.arange(len(members)) % FOLDS
    return folds


def wilson(successes: int, n: int) -> Metric:
    """Return a share with its 95% Wilson score interval (Wilson 1927); 0 of 0 has the interval [0, 1]."""
    share = successes / max(n, 1)
    low, high = wilson_interval(share, n) if n else (0.0, 1.0)
    return Metric.within(low, share, high, n)


def stage_one_metrics(stage: StageOne, held_out: LabelledEmbeddings, alpha: float) -> dict[str, Metric]:
    """Measure stage 1 on held-out queries; no metrics without any.

    Returns:
        `category_accuracy` and `macro_f1`, before the fallback. `coverage`, the share of queries not sent to general.
        `error_when_sure`, the misclassified share of those (the promise: at most alpha). `ece`, the calibration error.
        `general_recall`, the share of `general` queries that were sent there.
    """
    from sklearn.metrics import f1_score

    labels, k = held_out.labels, stage.unseen.shape[1]
    if len(labels) == 0:
        return {}
    probs = stage.probs(held_out.embeddings)
    sure = stage.is_sure(held_out.embeddings, probs, alpha)
    known = labels < k
    predicted = probs.argmax(axis=1)
    right = (predicted == labels) & known
    error, f1 = calibration_error(probs[known].max(axis=1), right[known].astype(np.float32)), 0.0
    if known.any():
        f1 = float(f1_score(labels[known], predicted[known], labels=np.unique(labels[known]), average="macro"))
    return {
        "category_accuracy": wilson(int(right.sum()), int(known.sum())),
        "macro_f1": Metric(value=f1, n=int(known.sum())),
        "coverage": wilson(int((sure & known).sum()), int(known.sum())),
        "error_when_sure": wilson(int((sure & ~right).sum()), int(sure.sum())),
        "ece": Metric(value=error or 0.0, n=int(known.sum())),
        "general_recall": wilson(int((~sure & ~known).sum()), int((~known).sum())),
    }
