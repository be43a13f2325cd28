"""An expert from any kind of encoder (`onnx`, `static`, `sentence_transformer`), with a document space of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from pydantic import Field

from coe.base.errors import ArtifactError
from coe.retrieval.types import ExpertOf
from coe.router import plugins
from coe.router.protocols import Encoder
from coe.router.reading.features import fingerprint
from coe.router.types import FloatArray, Record


class Sides(Record):
    """The differences between the encoding of queries and of documents."""

    query_prefix: str = Field(default="", description="put before every query, as some models were trained")
    document_prefix: str = Field(default="", description="put before every document")
    shares_documents: bool = Field(
        default=False, description="its queries search the base's documents: it was trained against them, frozen"
    )


class Options(Sides):
    encoder: str = Field(description="kind of encoder")
    options: dict[str, object] = Field(default_factory=dict, description="that kind's own options")


@dataclass(frozen=True)
class EncoderExpert:
    """A model for queries, and for documents unless it shares the base's."""

    name: str
    queries: Encoder
    documents: Encoder
    sides: Sides = field(repr=False)

    @property
    def space(self) -> str:
        if self.sides.shares_documents:
            return self.documents.fingerprint
        return fingerprint("encoder", self.documents.fingerprint, self.sides.document_prefix)

    @property
    def fingerprint(self) -> str:
        return fingerprint("encoder", self.space, self.queries.fingerprint, self.sides.query_prefix)

    @property
    def dim(self) -> int:
        return self.queries.dim

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        return self.queries.encode([self.sides.query_prefix + text if text.strip() else "" for text in texts])

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        if self.sides.shares_documents:
            return self.documents.encode(texts)
        return self.documents.encode([self.sides.document_prefix + text if text.strip() else "" for text in texts])


def expert_of(encoder: Encoder, sides: Sides) -> ExpertOf:
    """Return a builder of experts; it raises ArtifactError if a model shares documents of other dimensions."""

    def attached(name: str, base: Encoder) -> EncoderExpert:
        if not sides.shares_documents:
            return EncoderExpert(name, encoder, encoder, sides)
        if encoder.dim != base.dim:
            raise ArtifactError(
                f"retrieval.experts.{name}: has {encoder.dim} dimensions and is to share the base's documents, "
                f"which have {base.dim}"
            )
        return EncoderExpert(name, encoder, base, sides)

    return attached


def inner(options: Options) -> tuple[plugins.Inner, ...]:
    return (plugins.Inner("encoder", "router.encoders", options.encoder, options.options),)


def build(options: Options) -> ExpertOf:
    """Return a builder of experts; errors in the options are those of the encoder's kind."""
    return expert_of(cast(Encoder, plugins.build("router.encoders", options.encoder, options.options)), options)


EXAMPLES = (Options(encoder="hashing"), Options(encoder="hashing", query_prefix="query: ", document_prefix="passage: "))
