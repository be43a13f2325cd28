"""Any sentence-transformers model by name, through torch, with a document space of its own."""

from __future__ import annotations

from coe.retrieval.experts.encoder import Sides, expert_of
from coe.retrieval.types import ExpertOf
from coe.router.encoders import sentence_transformer


class Options(sentence_transformer.Options, Sides):
    """Those of the encoder, and of both sides."""


def build(options: Options) -> ExpertOf:
    """Raises MissingExtraError, MissingWeightsError."""
    return expert_of(sentence_transformer.build(options), options)


IMPORTS = sentence_transformer.IMPORTS
EXAMPLES = (Options(), Options(query_prefix="query: ", document_prefix="passage: "))
