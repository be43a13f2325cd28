"""/v1/batches: files of requests that are answered within a day, in OpenAI's shape."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from coe.base.json_text import Body, ColumnText
from coe.base.period import parse_period
from coe.decision_log.tables.access import BatchRow
from coe.gateway.batches.batch_store import CANCELLED, COMPLETED, EXPIRED, FAILED
from coe.gateway.endpoints.access import Batches, CallerOf, Owner, api_router, part, retrieval_service
from coe.gateway.endpoints.store_api import Json, Metadata, list_view
from coe.gateway.http.upload import BATCH
from coe.gateway.http_errors import invalid
from coe.retrieval.service import RetrievalService
from coe.retrieval.stores.files import new_id
from coe.retrieval.stores.paging import Page

api = api_router("/v1/batches")

ENDS = (COMPLETED, CANCELLED, EXPIRED, FAILED)


class NewBatch(Body):
    """POST /v1/batches."""

    input_file_id: ColumnText
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
    completion_window: Annotated[str, Field(pattern=r"^[1-9]\d{0,2}[mhd]$")] = "24h"
    metadata: Metadata | None = None


@api.post("")
async def create_batch(
    asked: NewBatch,
    batches: Batches,
    caller: CallerOf,
    retrieval: Annotated[RetrievalService | None, part("retrieval")],
) -> Json:
    """A batch of an uploaded file, which is read later: what is wrong with a line is said in the error file."""
    file = await batches.files.file(caller.tenant, asked.input_file_id)
    if file.purpose != BATCH:
        raise invalid(f"'input_file_id' was uploaded for purpose {file.purpose}; allowed: {BATCH}", "input_file_id")
    if asked.endpoint == "/v1/embeddings":
        await retrieval_service(retrieval)
    now = time.time()
    batch = BatchRow(
        batch_id=new_id("batch").replace("-", "_"),
        owner=caller.tenant,
        key_id=caller.key_id,
        endpoint=asked.endpoint,
        input_file_id=file.file_id,
        completion_window=asked.completion_window,
        metadata_json=json.dumps(asked.metadata or {}),
        created_at=now,
        expires_at=now + parse_period("completion_window", asked.completion_window),
    )
    await asyncio.to_thread(batches.put, batch)
    return batch_view(batch)


@api.get("")
async def list_batches(
    batches: Batches, owner: Owner, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str | None = None
) -> Json:
    """The caller's batches, newest first."""
    page = Page(limit, after=after)
    return list_view(await asyncio.to_thread(batches.page, owner, page), page, batch_view)


@api.get("/{job_id}")
async def show_batch(job_id: str, batches: Batches, owner: Owner) -> Json:
    """404 for a batch of another team."""
    return batch_view(await asyncio.to_thread(batches.batch, owner, job_id))


@api.post("/{job_id}/cancel")
async def cancel_batch(job_id: str, batches: Batches, owner: Owner) -> Json:
    """Ends a batch with the results that are there, once the lines that run have ended. 409: it has ended."""
    return batch_view(await asyncio.to_thread(batches.cancel, owner, job_id))


def batch_view(batch: BatchRow) -> Json:
    moments = {"in_progress_at": batch.in_progress_at, "cancelling_at": batch.cancelling_at}
    moments |= {f"{each}_at": batch.ended_at if each == batch.status else None for each in ENDS}
    problem = {"code": "batch_failed", "message": batch.problem, "line": None, "param": "input_file_id"}
    return {
        "id": batch.batch_id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": None if batch.problem is None else {"object": "list", "data": [problem]},
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        **{name: None if at is None else int(at) for name, at in moments.items()},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": json.loads(batch.metadata_json),
    }
