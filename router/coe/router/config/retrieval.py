"""The `retrieval` section of experts.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from coe.base.errors import allowed_values
from coe.router.config.expert import Engine, ExpertConfig, ScalarOption
from coe.router.section import AUTO, EnvironmentName, HttpUrl, Name, PluginConfig, Section, Usd

BASE = "base"
RERANKER = "reranker"


def check_unreserved(name: str) -> str:
    if name in (AUTO, BASE, RERANKER):
        raise ValueError(f"'{name}' is reserved: '{AUTO}' asks for routing; the others are keys of the section")
    return name


MAX_FILE_MB = 32
"""Megabytes of an upload if the section sets no other limit."""

MAX_TEXTS = 2048
"""Texts of one request for embeddings."""

MAX_REQUEST_TOKENS = 300_000
"""Estimated tokens of all texts of a request for embeddings or reranking."""

REQUEST_TIMEOUT_S = 120.0
"""Longest time of such a request, or of a search."""


class RerankerConfig(Section):
    """A model behind `POST URL/rerank`, in the API of Cohere and Jina, which vLLM serves too."""

    engine: Name | None = Field(default=None, description="name of one of `engines`, in place of url, model and key")
    url: HttpUrl = Field(default="", description="API root, e.g. http://127.0.0.1:8001/v1")
    model: str = Field(default="", description="model name on that endpoint")
    api_key_env: EnvironmentName | None = Field(default=None, description="name of the variable with its key")
    timeout_s: ClassVar = 30.0

    @model_validator(mode="after")
    def names_one_endpoint(self) -> Self:
        if self.engine is None and not (self.url and self.model):
            raise ValueError("needs `engine`, or `url` and `model`")
        return self


POOLING: dict[str, ScalarOption] = {"runner": "pooling"}
"""Argument by which vLLM serves embeddings or relevance in place of text."""

ENGINE_FIELDS = frozenset({"engine", "model", "url", "served_model", "api_key_env"}) | {
    *("engine_args", "engine_env", "params_b", "gpu_gib", "context_tokens", "description")
}
"""Keys of an expert's entry that a pooling engine has."""


def pooling_engine(entry: ExpertConfig) -> ExpertConfig:
    """Return the entry of a vLLM engine that makes embeddings or scores. Raises ValueError for any other."""
    if entry.engine is not Engine.VLLM:
        raise ValueError(f"engine: '{entry.engine}'; allowed: vllm")
    if strange := sorted(entry.model_fields_set - ENGINE_FIELDS):
        raise ValueError(f"{strange[0]}: a pooling engine takes none; allowed: {', '.join(sorted(ENGINE_FIELDS))}")
    if len(entry.roots) > 1:
        raise ValueError(f"url: {len(entry.roots)} addresses; allowed: one")
    if (runner := entry.engine_args.get("runner", "pooling")) != "pooling":
        raise ValueError(f"engine_args.runner: {runner!r}; allowed: pooling, the default here")
    return entry.model_copy(update={"engine_args": {**entry.engine_args, **POOLING}})


class RetrievalConfig(Section):
    """Embedding experts over one frozen document side, and the library that chooses among them."""

    encoder: PluginConfig = Field(description="the base: encodes documents, and queries for routing")
    experts: dict[Annotated[Name, AfterValidator(check_unreserved)], PluginConfig] = Field(
        default_factory=dict, description="name -> kind (bm25, encoder, openai, sentence_transformer, trained)"
    )
    engines: dict[
        Annotated[Name, AfterValidator(check_unreserved)], Annotated[ExpertConfig, AfterValidator(pooling_engine)]
    ] = Field(
        default_factory=dict,
        description="name -> vLLM engine of embeddings or relevance, an entry as of `experts`; kind `openai` and the "
        "reranker use it by `engine: NAME`",
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

    def with_addresses(self, roots: Mapping[str, str]) -> Self:
        """Return the section with the endpoint of each engine in place of its name.

        Args:
            roots: API root per engine.

        Raises:
            ValueError: a key path and a name that no engine has.
        """
        endpoints = {
            name: {
                "url": roots[name],
                "model": entry.name_on_engine(name),
                **({} if entry.api_key_env is None else {"api_key_env": entry.api_key_env}),
            }
            for name, entry in self.engines.items()
        }
        experts = {
            name: plugin.model_validate(addressed(dict(plugin), endpoints, f"experts.{name}"))
            for name, plugin in self.experts.items()
        }
        encoder = self.encoder.model_validate(addressed(dict(self.encoder), endpoints, "encoder"))
        reranker = self.reranker
        if reranker is not None and reranker.engine is not None:
            reranker = reranker.model_copy(update=addressed({"engine": reranker.engine}, endpoints, "reranker"))
        return self.model_copy(update={"encoder": encoder, "experts": experts, "reranker": reranker})


def addressed(
    options: Mapping[str, object], endpoints: Mapping[str, Mapping[str, str]], where: str
) -> dict[str, object]:
    """Return options, those of nested plugins included, with an endpoint in place of `engine`. Raises ValueError."""
    found: dict[str, object] = {}
    for key, value in options.items():
        if key == "engine" and isinstance(value, str):
            if value not in endpoints:
                raise ValueError(f"{where}.engine: '{value}' is none of `engines`{allowed_values(value, [*endpoints])}")
            found |= endpoints[value]
        elif isinstance(value, Mapping):
            found[key] = addressed(value, endpoints, f"{where}.{key}")
        else:
            found[key] = value
    return found
