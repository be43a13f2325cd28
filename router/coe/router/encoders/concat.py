"""Several encoders side by side: their vectors joined, each scaled by its weight, then scaled to unit length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from pydantic import Field

from coe.router import plugins
from coe.router.protocols import Encoder
from coe.router.reading.features import fingerprint, unit_rows
from coe.router.types import FloatArray, Record


class Part(Record):
    """One encoder of the row: its kind, its own options, and how much its vector counts."""

    kind: str
    options: dict[str, object] = Field(default_factory=dict)
    weight: float = Field(default=1.0, gt=0)


class Options(Record):
    parts: tuple[Part, ...] = Field(
        default=(
            Part(kind="use_multilingual", options={"opening_tokens": 10}),
            Part(kind="hashing", options={"dim": 512}, weight=0.5),
        ),
        min_length=1,
    )


@dataclass(frozen=True)
class ConcatEncoder:
    """Parts in order with their weights."""

    parts: tuple[Encoder, ...]
    weights: tuple[float, ...]

    @property
    def dim(self) -> int:
        return sum(part.dim for part in self.parts)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("concat", *(part.fingerprint for part in self.parts), self.weights)

    @property
    def is_inline(self) -> bool:
        return all(part.is_inline for part in self.parts)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        pairs = zip(self.parts, self.weights, strict=True)
        joined = np.concatenate([part.encode(texts) * np.float32(weight) for part, weight in pairs], axis=1)
        return unit_rows(joined)


def inner(options: Options) -> tuple[plugins.Inner, ...]:
    parts = enumerate(options.parts)
    return tuple(plugins.Inner(f"parts.{i}", "router.encoders", part.kind, part.options) for i, part in parts)


def build(options: Options) -> ConcatEncoder:
    """Build an encoder that concatenates the weighted vectors of its parts.

    Raises:
        ConfigError, MissingWeightsError, MissingExtraError: as building a part raises them.
    """
    parts = tuple(cast(Encoder, plugins.build("router.encoders", part.kind, part.options)) for part in options.parts)
    return ConcatEncoder(parts, tuple(part.weight for part in options.parts))


EXAMPLES = (Options(parts=(Part(kind="hashing"), Part(kind="hashing", options={"dim": 64}, weight=0.5))), Options())
