"""/v1/vector_stores: stores, their files and their search, in OpenAI's shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from io import BytesIO

from coe.base.errors import RequestError
from coe.gateway.endpoints.access import ListPage, Owner, OwnStore, Stores, api_router
from coe.gateway.endpoints.files import safe_name
from coe.gateway.endpoints.store_api import (
    AttributesUpdate,
    BatchCreate,
    FileAttach,
    Json,
    StoreCreate,
    StoreUpdate,
    TextsAdd,
    batch_view,
    list_view,
    store_file_view,
    store_view,
)
from coe.retrieval.stores.chunking import ChunkingStrategy, StaticStrategy
from coe.retrieval.stores.files import new_id, not_found
from coe.retrieval.stores.filters import Scalar
from coe.retrieval.stores.store_records import Addition, FileStatus

api = api_router("/v1/vector_stores")


@api.post("")
async def create_store(asked: StoreCreate, stores: Stores, owner: Owner) -> Json:
    """A store, with files of the caller if some are named."""
    for file_id in asked.file_ids:
        await stores.files.file(owner, file_id)  # before a store is made that the refused request should not leave
    store = await stores.create(
        owner,
        name=asked.name,
        description=asked.description,
        metadata=asked.metadata or {},
        expires_days=asked.expires_after.days if asked.expires_after else None,
    )
    if asked.file_ids:
        await stores.attach(owner, store.store_id, additions(asked.file_ids, None, asked.chunking_strategy))
    return store_view(await stores.store(owner, store.store_id))


@api.get("")
async def list_stores(stores: Stores, owner: Owner, page: ListPage) -> Json:
    return list_view(await asyncio.to_thread(stores.catalog.stores, owner, page), page, store_view)


@api.get("/{store_id}")
async def show_store(store: OwnStore) -> Json:
    """404 for a store that another key made."""
    return store_view(store)


@api.post("/{store_id}")
async def change_store(store: OwnStore, asked: StoreUpdate, stores: Stores, owner: Owner) -> Json:
    """Changes what is given."""
    values: dict[str, object] = {}
    if asked.name is not None:
        values["name"] = asked.name
    if "expires_after" in asked.model_fields_set:
        values["expires_days"] = asked.expires_after.days if asked.expires_after else None
    if asked.metadata is not None:
        values["metadata_json"] = json.dumps(asked.metadata)
    if values:
        await asyncio.to_thread(stores.catalog.change_store, store.store_id, values)
    return store_view(await stores.store(owner, store.store_id))


@api.delete("/{store_id}")
async def delete_store(store_id: str, stores: Stores, owner: Owner) -> Json:
    """Deletes a store with its vectors; uploaded files stay."""
    await stores.delete(owner, store_id)
    return {"id": store_id, "object": "vector_store.deleted", "deleted": True}


@api.post("/{store_id}/files")
async def attach_file(store: OwnStore, asked: FileAttach, stores: Stores, owner: Owner) -> Json:
    """Puts a file into a store; it is read soon, see its status."""
    await stores.attach(owner, store.store_id, additions([asked.file_id], asked.attributes, asked.chunking_strategy))
    return store_file_view(await stores.store_file(store.store_id, asked.file_id))


@api.get("/{store_id}/files")
async def list_store_files(store: OwnStore, stores: Stores, page: ListPage, filter: FileStatus | None = None) -> Json:
    files = await asyncio.to_thread(stores.catalog.store_files, store.store_id, page, filter)
    return list_view(files, page, store_file_view)


@api.get("/{store_id}/files/{file_id}")
async def show_store_file(store: OwnStore, file_id: str, stores: Stores) -> Json:
    """With its status, and what was wrong with it."""
    return store_file_view(await stores.store_file(store.store_id, file_id))


@api.post("/{store_id}/files/{file_id}")
async def change_attributes(store: OwnStore, file_id: str, asked: AttributesUpdate, stores: Stores) -> Json:
    """Attributes in place of the ones there are."""
    await stores.store_file(store.store_id, file_id)
    values = {"attributes_json": json.dumps(asked.attributes or {})}
    await asyncio.to_thread(stores.catalog.change_store_file, store.store_id, file_id, values)
    return store_file_view(await stores.store_file(store.store_id, file_id))


@api.get("/{store_id}/files/{file_id}/content")
async def store_file_content(store: OwnStore, file_id: str, stores: Stores) -> Json:
    """The chunks of a file in order."""
    await stores.store_file(store.store_id, file_id)
    texts = await asyncio.to_thread(stores.chunks.texts_of_file, store.store_id, file_id)
    return {
        "object": "vector_store.file_content.page",
        "data": [{"type": "text", "text": text} for text in texts],
        "has_more": False,
        "next_page": None,
    }


@api.delete("/{store_id}/files/{file_id}")
async def detach_file(store: OwnStore, file_id: str, stores: Stores) -> Json:
    """Takes a file out of a store; the upload stays."""
    await stores.detach(store.store_id, file_id)
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


@api.post("/{store_id}/texts")
async def add_texts(store: OwnStore, asked: TextsAdd, stores: Stores, owner: Owner) -> Json:
    """Texts as files of a store. Answers when each is found by a search or has failed, or after five minutes."""
    files = []
    for item in asked.texts:
        content = item.text.encode("utf-8", "replace")
        file = await stores.files.upload(owner, safe_name(item.filename), "user_data", BytesIO(content), len(content))
        files += additions([file.file_id], item.attributes, asked.chunking_strategy)
    file_ids = [file.file_id for file in files]
    try:
        await stores.attach(owner, store.store_id, files)
    except RequestError:
        for file_id in file_ids:
            await stores.delete_file(owner, file_id)
        raise
    await stores.ingestion.until_read(store.store_id, set(file_ids))
    read = [await stores.store_file(store.store_id, file_id) for file_id in file_ids]
    return {"object": "list", "data": [store_file_view(file) for file in read]}


@api.post("/{store_id}/file_batches")
async def create_batch(store: OwnStore, asked: BatchCreate, stores: Stores, owner: Owner) -> Json:
    """Puts many files into a store."""
    batch_id = new_id("vsfb")
    files = additions(asked.file_ids, asked.attributes, asked.chunking_strategy)
    for file in asked.files:
        attributes = asked.attributes if file.attributes is None else file.attributes
        files += additions([file.file_id], attributes, file.chunking_strategy or asked.chunking_strategy)
    await stores.attach(owner, store.store_id, files, batch_id)
    return await show_batch(store, batch_id, stores)


@api.get("/{store_id}/file_batches/{batch_id}")
async def show_batch(store: OwnStore, batch_id: str, stores: Stores) -> Json:
    """With the files that are in the store by this batch still: none when others took them over or out."""
    batch = await asyncio.to_thread(stores.catalog.batch, store.store_id, batch_id)
    if batch is None:
        raise not_found(f"batch in {store.store_id}", batch_id, "batch_id")
    return batch_view(store.store_id, batch_id, *batch)


@api.post("/{store_id}/file_batches/{batch_id}/cancel")
async def cancel_batch(store: OwnStore, batch_id: str, stores: Stores) -> Json:
    """Files of the batch whose reading has not begun are not read."""
    await show_batch(store, batch_id, stores)
    await asyncio.to_thread(stores.catalog.cancel_batch, store.store_id, batch_id)
    return await show_batch(store, batch_id, stores)


@api.get("/{store_id}/file_batches/{batch_id}/files")
async def list_batch_files(
    store: OwnStore, batch_id: str, stores: Stores, page: ListPage, filter: FileStatus | None = None
) -> Json:
    await show_batch(store, batch_id, stores)
    files = await asyncio.to_thread(stores.catalog.store_files, store.store_id, page, filter, batch_id)
    return list_view(files, page, store_file_view)


def additions(
    file_ids: Sequence[str], attributes: Mapping[str, Scalar] | None, strategy: ChunkingStrategy | None
) -> list[Addition]:
    """Files to put into a store, each once. Without a static strategy the gateway chooses how they are cut."""
    chunking = strategy.static if isinstance(strategy, StaticStrategy) else None
    return [Addition(file_id, attributes or {}, chunking) for file_id in dict.fromkeys(file_ids)]
