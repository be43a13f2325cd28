"""A model behind an OpenAI-compatible `/embeddings` endpoint (vLLM's pooling models, a hosted provider)."""

from __future__ import annotations

from pydantic import Field

from retrieval.experts.encoder import Options as EncoderOptions
from retrieval.experts.encoder import UnboundEncoder
from router.encoders import openai


class Options(openai.Options):
    query_prefix: str = Field(default="", description="put before every query, as some models were trained")
    document_prefix: str = Field(default="", description="put before every document")
    shares_documents: bool = Field(default=False, description="its queries search the base's documents")


def build(options: Options) -> UnboundEncoder:
    """Connects at the first call only."""
    own = options.model_dump(include=set(openai.Options.model_fields))
    sides = options.model_dump(exclude=set(openai.Options.model_fields))
    return UnboundEncoder(openai.build(openai.Options(**own)), EncoderOptions(encoder="openai", **sides))


EXAMPLES = (Options(url="http://127.0.0.1:8001/v1", model="e5", dim=384, query_prefix="query: "),)
