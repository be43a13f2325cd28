"""OpenAI's chunking strategies, by which a client chooses how its files are cut."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from coe.base.json_text import Body


class StaticChunking(Body):
    """OpenAI's static strategy."""

    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    chunk_overlap_tokens: int = Field(ge=0)

    @model_validator(mode="after")
    def overlap_is_at_most_half(self) -> StaticChunking:
        if 2 * self.chunk_overlap_tokens > self.max_chunk_size_tokens:
            raise ValueError(
                f"chunk_overlap_tokens is {self.chunk_overlap_tokens}; allowed: at most half of max_chunk_size_tokens "
                f"({self.max_chunk_size_tokens})"
            )
        return self


class AutoStrategy(Body):
    """The gateway's choice of chunk sizes."""

    type: Literal["auto"]


class StaticStrategy(Body):
    """The client's choice of chunk sizes."""

    type: Literal["static"]
    static: StaticChunking


ChunkingStrategy = AutoStrategy | StaticStrategy
