"""Bodies of requests about vector stores, which refuse unknown keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from retrieval.stores.chunking import ChunkingStrategy
from retrieval.stores.filters import Filter, Scalar
from router.request_body import Body, ColumnText
from router.section import AUTO

MAX_INPUT_CHARS = 100_000
MAX_PAIRS = 16
MAX_ATTACHED = 500


def few_pairs(pairs: object) -> object:
    """Counts before each value is looked at: a bad value is a fault for every type it might have had."""
    if isinstance(pairs, dict) and len(pairs) > MAX_PAIRS:
        raise ValueError(f"has {len(pairs)} pairs; allowed: at most {MAX_PAIRS}")
    return pairs


def check_pairs(pairs: dict[str, Scalar]) -> dict[str, Scalar]:
    """OpenAI's bounds on keys and values of metadata and attributes."""
    for key, value in pairs.items():
        if not 0 < len(key) <= 64:
            raise ValueError(f"key '{key[:70]}' has {len(key)} characters; allowed: 1 to 64")
        if isinstance(value, str) and len(value) > 512:
            raise ValueError(f"value of '{key}' has {len(value)} characters; allowed: at most 512")
    return pairs


def check_metadata(pairs: dict[str, str]) -> dict[str, str]:
    check_pairs({**pairs})
    return pairs


Attributes = Annotated[dict[str, Scalar], BeforeValidator(few_pairs), AfterValidator(check_pairs)]
Metadata = Annotated[dict[str, str], BeforeValidator(few_pairs), AfterValidator(check_metadata)]
Text = Annotated[str, Field(max_length=MAX_INPUT_CHARS)]
FileIds = Annotated[list[ColumnText], Field(max_length=MAX_ATTACHED, fail_fast=True)]


class ExpiresAfter(Body):
    """Days after the last use."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class StoreCreate(Body):
    """POST /v1/vector_stores."""

    name: ColumnText = Field(default="", max_length=256)
    description: ColumnText | None = Field(default=None, max_length=2048)
    file_ids: FileIds = Field(default_factory=list)
    chunking_strategy: ChunkingStrategy | None = Field(default=None, discriminator="type")
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class StoreUpdate(Body):
    """POST /v1/vector_stores/{id}. What is not given stays; null removes the expiry."""

    name: ColumnText | None = Field(default=None, max_length=256)
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class FileAttach(Body):
    """POST /v1/vector_stores/{id}/files."""

    file_id: ColumnText
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = Field(default=None, discriminator="type")


class AttributesUpdate(Body):
    """POST /v1/vector_stores/{id}/files/{file_id}."""

    attributes: Attributes | None


class BatchFile(Body):
    """A file of a batch with attributes of its own."""

    file_id: ColumnText
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = Field(default=None, discriminator="type")


class BatchCreate(Body):
    """POST /v1/vector_stores/{id}/file_batches: `file_ids`, or `files`."""

    file_ids: FileIds = Field(default_factory=list)
    files: list[BatchFile] = Field(default_factory=list, max_length=MAX_ATTACHED, fail_fast=True)
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = Field(default=None, discriminator="type")

    @model_validator(mode="after")
    def one_of_both(self) -> BatchCreate:
        if bool(self.file_ids) == bool(self.files):
            raise ValueError("give either file_ids or files")
        return self


class TextItem(Body):
    """A text that becomes a file."""

    text: Annotated[str, Field(min_length=1, max_length=1_000_000)]
    filename: str = Field(default="text.txt", min_length=1, max_length=255)
    attributes: Attributes | None = None


class TextsAdd(Body):
    """POST /v1/vector_stores/{id}/texts, an addition: texts without an upload; answers when they can be found."""

    texts: list[TextItem] = Field(min_length=1, max_length=MAX_ATTACHED, fail_fast=True)
    chunking_strategy: ChunkingStrategy | None = Field(default=None, discriminator="type")


class RankingOptions(Body):
    """The expert ranks, so only the threshold matters."""

    ranker: str | None = None
    score_threshold: float | None = Field(default=None, ge=-1, le=1)


class SearchBody(Body):
    """POST /v1/vector_stores/{id}/search. `model` is an addition: a retrieval expert, or `auto`."""

    query: Text | Annotated[list[Text], Field(min_length=1, max_length=16, fail_fast=True)]
    filters: Filter | None = None
    max_num_results: int = Field(default=10, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    rewrite_query: bool = False
    model: str = Field(default=AUTO, min_length=1)
