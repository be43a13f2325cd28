"""Any sentence-transformers model by name, through torch, with a document space of its own."""

from __future__ import annotations

from pydantic import Field

from retrieval.experts.encoder import Options as EncoderOptions
from retrieval.experts.encoder import UnboundEncoder
from router.encoders import sentence_transformer


class Options(sentence_transformer.Options):
    query_prefix: str = Field(default="", description="put before every query, as some models were trained")
    document_prefix: str = Field(default="", description="put before every document")
    shares_documents: bool = Field(default=False, description="its queries search the base's documents")


def build(options: Options) -> UnboundEncoder:
    """Raises MissingExtraError, MissingWeightsError."""
    own = options.model_dump(include=set(sentence_transformer.Options.model_fields))
    sides = options.model_dump(exclude=set(sentence_transformer.Options.model_fields))
    return UnboundEncoder(
        sentence_transformer.build(sentence_transformer.Options(**own)),
        EncoderOptions(encoder="sentence_transformer", options=own, **sides),
    )


IMPORTS, EXTRA = sentence_transformer.IMPORTS, sentence_transformer.EXTRA
EXAMPLES = (Options(), Options(query_prefix="query: ", document_prefix="passage: "))
