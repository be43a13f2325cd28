"""The manifest of a trained router."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from router.types import Metric, Record


class ComponentSpec(Record):
    """A plugin as recorded in a manifest: its kind and validated options."""

    kind: str
    options: dict[str, object] = Field(default_factory=dict)


class EncoderSpec(ComponentSpec):
    """The encoder that made the training embeddings. Serving with another fingerprint is refused."""

    fingerprint: str
    dim: int = Field(gt=0)


class RouterManifest(Record):
    """Content of `manifest.json` of a trained router. `version` is the hash of everything that changes a decision."""

    schema_version: Literal[1] = 1
    version: str
    created_at: str = Field(description="ISO 8601, UTC")
    parents: tuple[str, ...] = ()
    encoder: EncoderSpec
    classifier: ComponentSpec
    scorer: ComponentSpec
    categories: tuple[str, ...] = Field(min_length=1, description="learned categories, in the order of the arrays")
    experts: tuple[str, ...] = Field(min_length=1, description="experts, in the order of the arrays")
    builtins: tuple[str, ...] = Field(default=(), description="experts that are not language models, in that order")
    temperature: float = Field(gt=0, description="probabilities are softmax(log p / temperature)")
    data_fingerprints: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, Metric] = Field(default_factory=dict)
    weights_sha256: str
