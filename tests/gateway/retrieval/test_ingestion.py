"""Reading behind the requests: attempts are counted before they begin, owners do not wait for each other, an end is
quick."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import openai
import pytest
import yaml
from sqlalchemy import select, update
from sqlmodel import col

from coe.base.errors import StoreError
from coe.decision_log.tables.files import StoreFileRow
from coe.retrieval.stores import ingestion
from coe.retrieval.stores.catalog import Catalog
from coe.retrieval.stores.ingestion import MAX_ATTEMPTS
from coe.retrieval.stores.store_records import FileStatus
from coe.retrieval.types import BaseExpert
from coe.router.types import FloatArray
from tests.gateway.retrieval.serving import Serving, serving
from tests.gateway.retrieval.test_kill import EXPERTS_FILE
from tests.gateway.served import end_gateway, start_gateway
from tests.processes import command_of, descendants_of
from tests.retrieval.stores.pdf import slow_pdf
from tests.waiting import DEADLINE_S, until

KEYS = ("sk-" + "a" * 40, "sk-" + "b" * 40)


async def attached(client: openai.AsyncOpenAI, name: str, content: bytes, store_id: str | None = None) -> Any:
    """A file in a store, which is a new one unless it is given."""
    file = await client.files.create(file=(name, content), purpose="assistants")
    if store_id is None:
        store_id = (await client.vector_stores.create()).id
    return await client.vector_stores.files.create(store_id, file_id=file.id)


async def until_ended(client: openai.AsyncOpenAI, file: Any) -> Any:
    async def ended() -> Any:
        now = await client.vector_stores.files.retrieve(file.id, vector_store_id=file.vector_store_id)
        return now.status != "in_progress" and now

    return await until(ended, "the end of reading")


def row_of(running: Serving, file_id: str) -> Any:
    with running.store.transaction("look") as connection:
        return connection.execute(select(StoreFileRow).where(col(StoreFileRow.file_id) == file_id)).one()


async def until_begun(running: Serving, file_id: str) -> None:
    await until(lambda: row_of(running, file_id).attempts > 0)


async def test_a_key_with_many_slow_files_does_not_keep_another_waiting(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, keys=KEYS) as running,
        running.openai(KEYS[0]) as slow,
        running.openai(KEYS[1]) as quick,
    ):
        files = [await attached(slow, f"{number}.pdf", slow_pdf()) for number in range(3)]
        await until_begun(running, files[0].id)
        read = await until_ended(quick, await attached(quick, "a.txt", b"a text"))
        assert read.status == "completed"
        statuses = [FileStatus(row_of(running, file.id).status) for file in files]
        assert statuses == [FileStatus.IN_PROGRESS] * 3
        assert [row_of(running, file.id).attempts for file in files] == [1, 0, 0]  # one at a time, the oldest first


async def test_the_loop_answers_while_a_large_upload_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, began = threading.Event(), threading.Event()
    encoders: set[int] = set()
    encode = BaseExpert.encode_documents

    def held(self: BaseExpert, texts: Sequence[str]) -> FloatArray:
        encoders.add(threading.get_ident())
        began.set()
        assert may_go_on.wait(DEADLINE_S)
        return encode(self, texts)

    monkeypatch.setattr(BaseExpert, "encode_documents", held)
    async with serving(tmp_path) as running, running.openai() as client:
        file = await attached(client, "large.txt", b"a line of a large text\n" * 2_000)
        assert await asyncio.to_thread(began.wait, DEADLINE_S)
        for _ in range(50):
            async with running.http.get(running.url.replace("/v1", "/healthz")) as response:
                assert response.status == 200
        assert FileStatus(row_of(running, file.id).status) is FileStatus.IN_PROGRESS
        may_go_on.set()
        assert (await until_ended(client, file)).status == "completed"
    assert threading.get_ident() not in encoders  # the loop's thread


async def test_a_database_that_stays_away_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ingestion, "RETRY_S", 0.0)
    looks = Mock(side_effect=StoreError("cannot find files", is_retryable=True))
    monkeypatch.setattr(Catalog, "owners_waiting", looks)
    async with serving(tmp_path):
        await until(lambda: looks.call_count > 3)
    assert sum("files wait" in record.getMessage() for record in caplog.records) == 1


async def test_an_orderly_end_does_not_count_as_an_attempt(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        file = await attached(client, "a.pdf", slow_pdf())
        await until_begun(running, file.id)
        assert row_of(running, file.id).claimed_until is not None
        await running.service.stores.ingestion.aclose()
        left = row_of(running, file.id)
        assert (left.status, left.attempts, left.claimed_until) == ("in_progress", 0, None)


async def test_a_file_that_ended_several_gateways_fails_and_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as running, running.openai() as client:
        ingestion = running.service.stores.ingestion
        await ingestion.aclose()
        file = await attached(client, "a.txt", b"a text")
        with running.store.transaction("pretend") as connection:
            connection.execute(update(StoreFileRow).values(attempts=MAX_ATTEMPTS))
    async with serving(tmp_path) as running, running.openai() as client:
        read = await until_ended(client, file)
        assert (read.status, read.last_error.code) == ("failed", "server_error")
        assert read.last_error.message == (
            "reading the file was begun 3 times, and each time the gateway ended before it; it is not tried again"
        )
        again = await client.vector_stores.files.create(file.vector_store_id, file_id=file.id)
        assert (await until_ended(client, again)).status == "completed"


async def test_a_reader_that_dies_with_every_attempt_fails_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.retrieval.stores.document_reader.PROGRAM", "import os; os.kill(os.getpid(), 9)")
    async with serving(tmp_path) as running, running.openai() as client:
        file = await until_ended(client, await attached(client, "a.txt", b"a text"))
        assert (file.status, file.last_error.code) == ("failed", "server_error")
        assert row_of(running, file.id).attempts == MAX_ATTEMPTS + 1


@pytest.mark.slow
async def test_killed_gateways_read_a_hostile_file_three_times_at_most(tmp_path: Path) -> None:
    """Real processes: each is killed while it reads, and the last one ends in order while it reads another."""
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(EXPERTS_FILE))
    file: Any = None
    for _ in range(MAX_ATTEMPTS):
        process, url = await asyncio.to_thread(start_gateway, tmp_path / "e.yaml", tmp_path / "data")
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            file = file or await attached(client, "a.pdf", slow_pdf())
            await until(partial(reads, process.pid))
        end_gateway(process, signal.SIGKILL)
    process, url = await asyncio.to_thread(start_gateway, tmp_path / "e.yaml", tmp_path / "data")
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        assert (await until_ended(client, file)).last_error.code == "server_error"
        await attached(client, "b.pdf", slow_pdf(), file.vector_store_id)
        await until(partial(reads, process.pid))
    end_gateway(process, signal.SIGTERM)
    assert process.returncode == 0


def reads(gateway: int) -> bool:
    return any("reading_process" in command_of(child) for child in descendants_of(gateway))
