"""LoRA adapters (Hu et al. 2021) on the products of a BERT, and what a base must do to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from coe.router.protocols import Encoder
from coe.router.types import FloatArray

LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""The products of a layer that an adapter may change, by the names that the weights' file gives them."""


@dataclass(frozen=True)
class LoraLayer:
    """The change to one product: x (t, in) adds x @ down (in, r) @ up (r, out); the scale alpha / r is in `up`."""

    down: FloatArray
    up: FloatArray


Lora = Mapping[str, LoraLayer]
"""Product by its full name, e.g. `encoder.layer.0.attention.self.query`."""


@runtime_checkable
class AdaptableEncoder(Encoder, Protocol):
    """An encoder that runs texts under adapters, such as kind `bert` of `coe-offline`."""

    @property
    def model(self) -> str:
        """Folder of its weights, as `router.weights` resolves it."""
        ...

    @property
    def pooling(self) -> str:
        """Which vectors of tokens make a text's: `mean` or `cls`."""
        ...

    def encode_with(self, texts: Sequence[str], loras: Sequence[Lora | None]) -> FloatArray:
        """(n, d), each text under its own adapter, None being the bare weights."""
        ...

    def shape_of(self, product: str) -> tuple[int, ...] | None:
        """(in, out) of a product; None where there is none of that name."""
        ...
