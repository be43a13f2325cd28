"""/v1/files: uploads that vector stores are filled from and batches read, in OpenAI's shape."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath
from typing import Annotated, Literal

from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from coe.base.errors import shorten
from coe.gateway.endpoints.access import Config, KeptFiles, Owner, answer, api_router, part
from coe.gateway.endpoints.store_api import Json, file_view, list_view
from coe.gateway.http.upload import PURPOSES, Upload, max_file_bytes
from coe.gateway.http_errors import ApiError, invalid
from coe.retrieval.service import RetrievalService
from coe.retrieval.stores.paging import Page

api = api_router()

MAX_FILENAME_CHARS = 255

FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string", "enum": PURPOSES}},
}


@api.post("/v1/files", openapi_extra={"requestBody": {"content": {"multipart/form-data": {"schema": FORM}}}})
async def upload(request: Request, files: KeptFiles, config: Config, owner: Owner) -> Response:
    """Keeps a file of at most `retrieval.max_file_mb`, or 200 MiB of a batch."""
    arrived: Upload = request.state.upload
    if arrived.purpose not in PURPOSES:
        allowed = ", ".join(PURPOSES)
        raise invalid(f"'purpose' is {shorten(arrived.purpose)}; allowed: {allowed}", "purpose")
    if arrived.size_bytes > (most := max_file_bytes(arrived.purpose, config)):
        raise ApiError(
            f"the file has {arrived.size_bytes} bytes; allowed for purpose {arrived.purpose}: at most {most}",
            status=413,
            code="body_too_large",
            param="file",
        )
    file = await files.upload(owner, safe_name(arrived.filename), arrived.purpose, arrived.content, arrived.size_bytes)
    return answer(file_view(file))


@api.get("/v1/files")
async def list_files(
    files: KeptFiles,
    owner: Owner,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> Json:
    """The caller's files."""
    page = Page(limit, order == "asc", after)
    return list_view(await asyncio.to_thread(files.page, owner, page, purpose), page, file_view)


@api.get("/v1/files/{file_id}")
async def show_file(file_id: str, files: KeptFiles, owner: Owner) -> Json:
    """404 for a file that another key uploaded."""
    return file_view(await files.file(owner, file_id))


@api.get("/v1/files/{file_id}/content")
async def file_content(file_id: str, files: KeptFiles, owner: Owner) -> Response:
    """The bytes as they were uploaded; never as something that a browser would show."""
    file = await files.file(owner, file_id)
    headers = {
        "content-disposition": "attachment",
        "content-length": str(file.size_bytes),
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(files.read(file_id), media_type="application/octet-stream", headers=headers)


@api.delete("/v1/files/{file_id}")
async def delete_file(
    file_id: str, files: KeptFiles, retrieval: Annotated[RetrievalService | None, part("retrieval")], owner: Owner
) -> Json:
    """Deletes a file, out of every store that it is in."""
    if retrieval is None:
        await files.delete(owner, file_id)
    else:
        await retrieval.stores.delete_file(owner, file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def safe_name(name: str) -> str:
    """The last part of a path, without signs that are not printed."""
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = "".join(char for char in last if char.isprintable()).strip()
    return kept[-MAX_FILENAME_CHARS:] or "file"
