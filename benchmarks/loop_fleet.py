"""A simulated fleet whose truth is an outcome table: who asks what, who answers how well, and how that changes.

Shapes: n prompts of traffic, d dimensions, m experts, t decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coe.base.embedding_cache import CachedEncoder
from coe.router.protocols import Encoder
from coe.router.reading.features import features_of
from coe.router.types import FloatArray
from coe.training.datasets.outcomes import read_outcomes
from coe.training.types import LabelledQuery, OutcomeTable

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

SEED_SHARE = 0.25
"""Share of each category's prompts that are the labelled queries of stage 1; they are never asked."""

LEAST_PROMPTS = 150

THUMB_FLOOR, THUMB_SLOPE = 0.1, 0.8
"""A thumb is up with probability floor + slope x score: people are not graders."""


COLUMNS = ("prompt", "expert", "category", "version", "reward", "key", "seen")
CATEGORY = COLUMNS.index("category")


@dataclass(frozen=True)
class Voices:
    """Raters and their ways: `keys` ask by turns of chance. `down` and `up` are the shares of bad and good answers that
    get a rating; `delay` is the mean number of decisions until it comes; key 0 asks a share `poison` of the traffic
    besides, and rates all of it the wrong way round."""

    keys: int = 40
    down: float = 0.3
    up: float = 0.3
    delay: float = 0.0
    poison: float = 0.0


CALM, HARD = Voices(), Voices(down=0.4, up=0.2, delay=500.0, poison=0.05)


@dataclass(frozen=True)
class LookupEncoder:
    """Vectors that were computed once, by text."""

    vectors: Mapping[str, FloatArray]
    dim: int
    fingerprint: str
    is_inline: bool = True

    def encode(self, texts: Sequence[str]) -> FloatArray:
        return np.stack([self.vectors[text] for text in texts]) if len(texts) else np.zeros((0, self.dim), np.float32)


@dataclass(frozen=True)
class World:
    """Labelled queries of stage 1, graded probes, and the prompts of traffic with their true scores.

    `newcomer` is a category that neither stage 1 nor a probe has seen, and `examples` those of its queries that are
    labelled when somebody adds it. Of every category `per_category` prompts are probes.
    """

    queries: tuple[LabelledQuery, ...]
    probes: OutcomeTable
    traffic: OutcomeTable
    encoder: LookupEncoder
    newcomer: str | None = None
    examples: tuple[LabelledQuery, ...] = ()
    per_category: int = 16

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({query.category for query in self.queries}))

    @cached_property
    def embeddings(self) -> FloatArray:
        """(n, d) of the traffic's prompts."""
        return self.encoder.encode(self.traffic.texts)


@dataclass(frozen=True)
class Moment:
    """The world at a time: `quality` (n, m) true scores now, `mix` (n,) how likely each prompt is asked, `experts`
    those that exist."""

    quality: Float64Array
    mix: Float64Array
    experts: tuple[str, ...]

    @property
    def reward(self) -> Float64Array:
        """(n, m) probability of a thumb up."""
        return THUMB_FLOOR + THUMB_SLOPE * self.quality

    def value(self, policy: Float64Array) -> float:
        """Mean true score of a policy (n, m)."""
        return float(self.mix @ (policy * self.quality).sum(axis=1))

    def reward_of(self, policy: Float64Array) -> float:
        """Mean true reward of a policy (n, m)."""
        return THUMB_FLOOR + THUMB_SLOPE * self.value(policy)


def build_world(
    table: OutcomeTable,
    encoder: Encoder,
    rng: np.random.Generator,
    *,
    probes_per_category: int = 16,
    newcomer: str | None = None,
) -> World:
    """Deals the prompts of a table out: a quarter of each category is labelled, some are probes, the rest is asked. Of
    a new category as many as would be probes are its examples."""
    labelled: list[int] = []
    probed: list[int] = []
    asked: list[int] = []
    examples: list[int] = []
    categories = np.array(table.categories)
    for category in sorted(set(table.categories)):
        rows = rng.permutation(np.flatnonzero(categories == category))
        first = 0 if category == newcomer else round(SEED_SHARE * len(rows))
        second = first + probes_per_category
        labelled += rows[:first].tolist()
        (examples if category == newcomer else probed).extend(rows[first:second].tolist())
        asked += rows[second:].tolist()
    vectors = features_of(encoder.encode(table.texts)).vectors
    queries, shown = (
        tuple(LabelledQuery(table.texts[i], table.categories[i]) for i in own) for own in (labelled, examples)
    )
    return World(
        queries=queries,
        probes=table.rows(probed),
        traffic=table.rows(asked),
        encoder=LookupEncoder(dict(zip(table.texts, vectors, strict=True)), vectors.shape[1], encoder.fingerprint),
        newcomer=newcomer,
        examples=shown,
        per_category=probes_per_category,
    )


def moment_of(
    world: World,
    *,
    factors: Mapping[str, float] | None = None,
    shares: Mapping[str, float] | None = None,
    absent: Sequence[str] = (),
    is_natural: bool = False,
) -> Moment:
    """Args:
    factors: expert -> what its scores are multiplied by (an expert that degraded).
    shares: category -> its share of the traffic; the others have equal ones, a new one none.
    absent: experts that do not exist yet.
    is_natural: every prompt is asked as often as another.
    """
    traffic = world.traffic
    scale = np.array([(factors or {}).get(name, 1.0) for name in traffic.experts])
    categories = np.array(traffic.categories)
    share = ({} if world.newcomer is None else {world.newcomer: 0.0}) | dict(shares or {})
    others = set(traffic.categories) - set(share)
    share |= {name: (1.0 - sum(share.values())) / len(others) for name in sorted(others)}
    mix = np.zeros(len(categories))
    for category, own in share.items():
        inside = categories == category
        mix[inside] = own / inside.sum()
    mix = np.ones(len(categories)) if is_natural else mix
    return Moment(
        quality=traffic.scores.astype(np.float64) * scale,
        mix=mix / mix.sum(),
        experts=tuple(name for name in traffic.experts if name not in absent),
    )


def redealt(world: World, rng: np.random.Generator, probes_per_category: int = 16) -> World:
    """The same world with other prompts for probes."""
    probed, asked = [], []
    whole = world.probes.joined(world.traffic)
    categories = np.array(whole.categories)
    for category in sorted(set(whole.categories)):
        rows = rng.permutation(np.flatnonzero(categories == category))
        first = 0 if category == world.newcomer else probes_per_category
        probed += rows[:first].tolist()
        asked += rows[first:].tolist()
    return replace(world, probes=whole.rows(probed), traffic=whole.rows(asked))


def sampled_table(
    folder: Path, per_category: int, rng: np.random.Generator, experts: Sequence[str] | None = None
) -> OutcomeTable:
    """At most so many prompts of each category of at least `LEAST_PROMPTS`, each text once."""
    table = replace(read_outcomes(folder, experts=experts), answers=None)
    categories = np.array(table.categories)
    _, first = np.unique(np.array(table.texts, dtype=object), return_index=True)
    distinct = np.zeros(len(categories), dtype=bool)
    distinct[first] = True
    rows = [
        rng.permutation(np.flatnonzero((categories == category) & distinct))[:per_category]
        for category in sorted(set(table.categories))
        if (distinct & (categories == category)).sum() >= LEAST_PROMPTS
    ]
    return table.rows(np.sort(np.concatenate(rows)))


@dataclass
class History:
    """Queries, choices and ratings so far, in blocks of decisions. `reward` is NaN where nobody rated."""

    blocks: list[Float64Array] = field(default_factory=list)
    n: int = 0

    def add(self, *columns: IntArray | Float64Array) -> None:
        """Columns in the order of `COLUMNS`, (t,) each."""
        self.blocks.append(np.stack([np.asarray(column, dtype=np.float64) for column in columns]))
        self.n += self.blocks[-1].shape[1]

    def columns(self) -> dict[str, Float64Array]:
        whole = np.concatenate(self.blocks, axis=1) if self.blocks else np.zeros((len(COLUMNS), 0))
        return dict(zip(COLUMNS, whole, strict=True))


def draw_prompts(moment: Moment, t: int, rng: np.random.Generator) -> IntArray:
    return rng.choice(len(moment.mix), size=t, p=moment.mix)


def draw_experts(policy: Float64Array, prompts: IntArray, rng: np.random.Generator) -> IntArray:
    """(t,) experts drawn from rows of a policy (n, m)."""
    edges = np.cumsum(policy[prompts], axis=1)
    return (rng.random(len(prompts))[:, None] * edges[:, -1:] > edges).sum(axis=1)


def draw_rewards(
    moment: Moment, prompts: IntArray, experts: IntArray, voices: Voices, rng: np.random.Generator
) -> tuple[Float64Array, IntArray, IntArray]:
    """(t,) thumbs, NaN for those who said nothing; (t,) the key of each, and after how many decisions it is seen."""
    n = len(prompts)
    key = np.where(rng.random(n) < voices.poison, 0, rng.integers(1, voices.keys, n))
    liked = (rng.random(n) < moment.reward[prompts, experts]).astype(np.float64)
    thumbs = np.where(key == 0, 1.0 - liked, liked)
    chance = np.where(key == 0, 1.0, np.where(liked > 0, voices.up, voices.down))
    late = rng.exponential(voices.delay, n).astype(np.int64) if voices.delay else np.zeros(n, dtype=np.int64)
    return np.where(rng.random(n) < chance, thumbs, np.nan), key, late


def cached(encoder: Encoder, folder: Path | None) -> Encoder:
    return encoder if folder is None else CachedEncoder(encoder, folder)


def without(table: OutcomeTable, experts: Sequence[str]) -> OutcomeTable:
    """The table without some experts."""
    kept = [i for i, name in enumerate(table.experts) if name not in experts]
    return replace(
        table,
        experts=tuple(table.experts[i] for i in kept),
        scores=table.scores[:, kept],
        cost_usd=table.cost_usd[:, kept],
        output_tokens=table.output_tokens[:, kept],
        latency_ms=table.latency_ms[:, kept],
    )


def reachable_value(moment: Moment, rows: IntArray, world: World) -> float:
    """Mean score of the best expert of every row that stage 1 decides, in hindsight: what a map can come to with this
    classifier."""
    present = [world.traffic.experts.index(name) for name in moment.experts]
    weighted = moment.mix[:, None] * moment.quality[:, present]
    return sum(float(weighted[rows == row].sum(axis=0).max()) for row in np.unique(rows))
