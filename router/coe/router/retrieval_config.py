"""The `retrieval` section of experts.yaml."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from coe.base.errors import allowed_values
from coe.router.section import AUTO, EnvironmentName, HttpUrl, Name, PluginConfig, Section, Usd

BASE = "base"
RERANKER = "reranker"


def check_unreserved(name: str) -> str:
    if name in (AUTO, BASE, RERANKER):
        raise ValueError(f"'{name}' is reserved: '{AUTO}' asks for routing; the others are keys of the section")
    return name


MAX_FILE_MB = 32
"""Of an upload, where the section says no other."""

MAX_TEXTS = 2048
"""Of one request for embeddings."""

MAX_REQUEST_TOKENS = 300_000
"""Of all texts of a request for embeddings or reranking, as estimated."""

REQUEST_TIMEOUT_S = 120.0
"""Longest time of such a request, or of a search."""


class RerankerConfig(Section):
    """A model behind `POST URL/rerank`, in the API of Cohere and Jina, which vLLM serves too."""

    url: HttpUrl = Field(description="API root, e.g. http://127.0.0.1:8001/v1")
    model: str = Field(min_length=1, description="model name on that endpoint")
    api_key_env: EnvironmentName | None = Field(default=None, description="name of the variable with its key")
    timeout_s: ClassVar = 30.0


class RetrievalConfig(Section):
    """Embedding experts over one frozen document side, and the library that chooses among them."""

    encoder: PluginConfig = Field(description="the base: encodes documents, and queries for routing")
    experts: dict[Annotated[Name, AfterValidator(check_unreserved)], PluginConfig] = Field(
        default_factory=dict, description="name -> kind (bm25, encoder, openai, sentence_transformer, trained)"
    )
    reranker: RerankerConfig | None = Field(
        default=None, description="orders documents of /v1/rerank in place of the embedding experts"
    )
    pilots: str | None = Field(default=None, description="folder of `coe retrieval pilots`; relative to experts.yaml")
    pgvector_url_env: EnvironmentName | None = Field(
        default=None,
        description="variable with the URL of a Postgres that keeps and searches vectors, e.g. DATABASE_URL; without "
        "it they are in the database of everything else, and each process searches in its memory",
    )
    max_file_mb: int = Field(default=MAX_FILE_MB, ge=1, le=512, description="largest upload, except for batches")
    prices_per_m_usd: dict[Name, Usd] = Field(
        default_factory=dict, description="expert, `base` or `reranker` -> list price of a million tokens that it reads"
    )

    @model_validator(mode="after")
    def prices_are_of_experts(self) -> Self:
        known = {BASE, RERANKER, *self.experts}
        for name in self.prices_per_m_usd.keys() - known:
            raise ValueError(f"prices_per_m_usd: {name!r} is not an expert{allowed_values(name, sorted(known))}")
        return self
