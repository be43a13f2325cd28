"""POST /v1/embeddings: vectors of queries by the expert chosen for each, of documents by base or an expert by name."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from fastapi import Request
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from coe.base.json_text import Body
from coe.decision_log.decision_record import DecisionKind
from coe.gateway.endpoints.access import Owner, Service, api_router
from coe.gateway.endpoints.retrieval_exchange import Desk, Outcome, check_tokens
from coe.gateway.endpoints.store_api import MAX_INPUT_CHARS
from coe.gateway.http_errors import ApiError, invalid
from coe.retrieval.fair_threads import pieces
from coe.retrieval.routing.query_routing import QueryRouting, RoutedQueries, why
from coe.retrieval.types import BASE, RetrievalReason, single
from coe.router.config.retrieval import MAX_TEXTS
from coe.router.section import AUTO
from coe.router.types import FloatArray, Record

api = api_router()

MAX_INPUTS = 2048


def few_inputs(inputs: object) -> object:
    """Counts before each text is looked at."""
    if isinstance(inputs, list) and len(inputs) > MAX_INPUTS:
        raise ValueError(f"holds {len(inputs)} texts; allowed: at most {MAX_INPUTS}")
    return inputs


Texts = Annotated[list[str], Field(fail_fast=True)]
Tokens = Annotated[list[int], Field(fail_fast=True)]
TokenLists = Annotated[list[Tokens], Field(fail_fast=True)]


class EmbeddingRequest(Body):
    """POST /v1/embeddings. With `auto`, queries are routed and documents go through base."""

    model: str = Field(default=AUTO, min_length=1)
    input: Annotated[str | Texts | Tokens | TokenLists, BeforeValidator(few_inputs)]
    input_type: Literal["query", "document"] = "query"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None


class EmbeddingItem(Record):
    """One vector. `expert`, `why` and `decision_id` are additions."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    expert: str
    why: str
    decision_id: str | None


class TokenUsage(Record):
    """Estimated tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(Record):
    """`model` is the expert, or `auto` where a batch was served by several."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: str
    usage: TokenUsage


@api.post("/v1/embeddings", response_model=EmbeddingAnswer)
async def embed(asked: EmbeddingRequest, request: Request, desk: Desk, service: Service, owner: Owner) -> Response:
    """Embeds up to 2048 texts, a few at a time."""
    texts = texts_of(asked, MAX_TEXTS)
    exchange = desk.begin(request, service.config, DecisionKind.EMBEDDING, asked.model)
    tokens = await check_tokens(texts, "input")
    async with desk.at_work(request, exchange, sum(tokens)):
        cuts = list(pieces(texts))
        run = service.run_soon if len(cuts) == 1 else service.run
        parts = [await run(owner, vectors_of, service.routing, texts[some], asked) for some in cuts]
        routed = RoutedQueries.joined([part for part, _ in parts])
        exchange.read_by(routed.decisions)
    vectors = [vector for _, found in parts for vector in found]
    exchange.overhead_ms = routed.routing_ms
    outcomes: list[Outcome] = []
    if asked.input_type == "query":
        outcomes = desk.outcomes_of(exchange, routed, prompt_tokens=tokens)
    return await desk.finish(
        exchange, outcomes, lambda: answer_of(asked, routed, vectors, outcomes, sum(tokens)).model_dump()
    )


def texts_of(asked: EmbeddingRequest, max_texts: int) -> list[str]:
    """The texts to embed. Raises ApiError."""
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    if not 0 < len(texts) <= max_texts:
        held = f"a list of {len(texts)} texts" if texts else "an empty list"
        raise invalid(f"'input' is {held}; allowed: a text, or 1 to {max_texts} texts", "input")
    checked: list[str] = []
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ApiError(
                "'input' holds token numbers, and experts differ in their vocabularies; allowed: texts (LangChain: "
                "check_embedding_ctx_length=False)",
                code="tokens_not_supported",
                param="input",
            )
        where = "input" if isinstance(asked.input, str) else f"input[{place}]"
        if not text.strip():
            raise invalid(f"'{where}' is empty; allowed: a text", where)
        if len(text) > MAX_INPUT_CHARS:
            raise invalid(f"'{where}' has {len(text)} characters; allowed: at most {MAX_INPUT_CHARS}", where)
        checked.append(text)
    return checked


def vectors_of(
    routing: QueryRouting, texts: Sequence[str], asked: EmbeddingRequest
) -> tuple[RoutedQueries, list[FloatArray]]:
    """Decisions, and a vector (d,) per text. Blocks. Raises ApiError."""
    named = routing.base if asked.model == AUTO else routing.dense_expert(asked.model)
    if asked.dimensions is not None and asked.dimensions > named.dim:
        raise invalid(f"'dimensions' is {asked.dimensions}; allowed for {asked.model}: 1 to {named.dim}", "dimensions")
    if asked.input_type == "document":
        # Documents of `auto` are base's: that is the space which every expert of `auto` searches.
        decision = single(BASE if asked.model == AUTO else asked.model, RetrievalReason.EXPLICIT)
        routed = RoutedQueries(tuple(texts), (decision,) * len(texts), None)
        vectors = list(named.encode_documents(texts))
    else:
        routed = routing.route(texts, asked.model, for_vectors=True)
        vectors = routing.vectors(routed, [decision.expert for decision in routed.decisions])
    return routed, [shortened(vector, asked.dimensions) for vector in vectors]


def shortened(vector: FloatArray, dimensions: int | None) -> FloatArray:
    """The first dimensions, brought back to length 1, as OpenAI does."""
    if dimensions is None or dimensions >= len(vector):
        return vector
    cut = vector[:dimensions]
    norm = float(np.linalg.norm(cut))
    return np.asarray(cut / norm if norm > 0 else cut, dtype=np.float32)


def answer_of(
    asked: EmbeddingRequest,
    routed: RoutedQueries,
    vectors: Sequence[FloatArray],
    outcomes: Sequence[Outcome],
    tokens: int,
) -> EmbeddingAnswer:
    experts = {decision.expert for decision in routed.decisions}
    return EmbeddingAnswer(
        data=[
            EmbeddingItem(
                index=place,
                embedding=encoded(vectors[place], asked.encoding_format),
                expert=decision.expert,
                why=why(decision) if asked.input_type == "query" else "documents are encoded by it",
                decision_id=outcomes[place].decision_id if outcomes else None,
            )
            for place, decision in enumerate(routed.decisions)
        ],
        model=experts.pop() if len(experts) == 1 else AUTO,
        usage=TokenUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def encoded(vector: FloatArray, form: str) -> list[float] | str:
    """Numbers, or their little-endian single-precision bytes in base64."""
    if form == "float":
        return [float(value) for value in vector]
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
