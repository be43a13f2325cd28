"""A model behind an OpenAI-compatible `/embeddings` endpoint (vLLM's pooling models, a hosted provider)."""

from __future__ import annotations

from coe.fleet.encoders import openai
from coe.retrieval.experts.encoder import Sides, expert_of
from coe.retrieval.types import ExpertOf


class Options(openai.Options, Sides):
    """The options of the encoder, and of both sides."""


def build(options: Options) -> ExpertOf:
    """Return a builder of experts; the first call connects."""
    return expert_of(openai.build(options), options)


EXAMPLES = (Options(url="http://127.0.0.1:8001/v1", model="e5", dim=384, query_prefix="query: "),)
