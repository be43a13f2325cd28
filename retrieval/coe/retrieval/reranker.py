"""A reranker: a model that scores documents against a query, behind an endpoint such as vLLM's `/v1/rerank`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from pydantic import SecretStr

from coe.base.errors import BackendError, ConfigError
from coe.base.json_text import from_json, to_json
from coe.fleet.calls.json_posts import WHOLE_MODEL, JsonPosts, in_batches
from coe.router.config.retrieval import RerankerConfig
from coe.router.types import FloatArray

BATCH = 64
"""Number of documents in one request."""


class Reranker:
    """A client of the rerank API of Cohere and Jina. A reranker reads query and document together, unlike vectors."""

    def __init__(self, config: RerankerConfig, secrets: Mapping[str, str]) -> None:
        key = None
        if config.api_key_env is not None:
            if not secrets.get(config.api_key_env):
                raise ConfigError(
                    f"retrieval.reranker.api_key_env: environment variable {config.api_key_env} is not set"
                )
            key = SecretStr(secrets[config.api_key_env])
        self._model = config.model
        self._posts = JsonPosts(
            f"rerank endpoint of model '{config.model}'", config.url.rstrip("/") + "/rerank", key, config.timeout_s
        )

    def scores(self, query: str, documents: Sequence[str]) -> FloatArray:
        """Return the relevance (n,) of each document; a document that is too long is cut, with a warning.

        Raises:
            BackendError: the endpoint fails, or returns an invalid answer.
        """
        return in_batches(documents, BATCH, partial(self._scores, query), cuts=True)

    def _scores(self, query: str, documents: list[str], cuts: bool) -> FloatArray:
        body = {"model": self._model, "query": query, "documents": documents, "return_documents": False}
        if cuts:
            body["truncate_prompt_tokens"] = WHOLE_MODEL
        answer = self._posts.send(to_json(body))
        scores = np.full(len(documents), np.nan, dtype=np.float32)
        try:
            for result in from_json(answer, max_values=100 * len(documents) + 1000, has_unique_keys=False)["results"]:
                scores[result["index"]] = result["relevance_score"]
        except (LookupError, TypeError, ValueError) as error:
            raise BackendError("rerank endpoint gave an answer that is not a list of results") from error
        if not np.isfinite(scores).all():
            raise BackendError(f"rerank endpoint did not give a score for each of {len(documents)} documents")
        return scores
