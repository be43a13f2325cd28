"""Uploads go to disk as they come, and bad forms are refused by what is wrong with them."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

import pytest
from sqlalchemy import select

from coe.base.errors import RouterError
from coe.decision_log.tables.files import FilePartRow
from coe.gateway.http.upload import MEMORY_BYTES, Form
from tests.gateway.retrieval.serving import Serving, retrieval_config, serving
from tests.waiting import until

MB = 1024 * 1024
KIND = {"content-type": "multipart/form-data; boundary=xx"}


def part(name: str, value: bytes, *options: str) -> bytes:
    return (
        "; ".join(("--xx\r\nContent-Disposition: form-data", f'name="{name}"', *options)).encode() + b"\r\n\r\n" + value
    )


FILE = part("file", b"the animal purrs", 'filename="a.txt"')
PURPOSE = part("purpose", b"assistants")


def form(*parts: bytes) -> bytes:
    return b"\r\n".join((*parts, b"--xx--\r\n"))


async def send(
    running: Serving, body: bytes | AsyncIterator[bytes], headers: dict[str, str] = KIND
) -> tuple[int, dict]:
    async with running.http.post(f"{running.url}/files", data=body, headers=headers) as answer:
        return answer.status, await answer.json()


BAD_FORMS = {
    "no parts": (form(), "'file': required key is missing"),
    "no end": (form(PURPOSE, FILE)[:-6], "not a complete form"),
    "no form": (b"hello", "not a complete form"),
    "nothing": (b"", "not a complete form"),
    "no file": (form(PURPOSE), "'file': required key is missing"),
    "no purpose": (form(FILE), "'purpose': required key is missing"),
    "an empty file": (form(PURPOSE, part("file", b"", 'filename="a"')), "'file' is empty"),
    "two files": (form(PURPOSE, FILE, FILE), "'file' is there twice"),
    "another purpose": (form(FILE, part("purpose", b"x")), "'purpose' is 'x'; allowed: assistants, batch, user_data"),
    "a purpose without end": (form(FILE, part("purpose", b"x" * 2000)), "'purpose' is longer than 1024 bytes"),
    "an end": (form(PURPOSE, part("expires_after[seconds]", b"9"), FILE), "files stay until they are deleted"),
    "many fields": (form(PURPOSE, *[part(f"f{i}", b"x") for i in range(50)], FILE), "more than 32 fields"),
    "a header without end": (b"--xx\r\n" + b"x" * 100_000, "not a complete form"),
    "many headers": (b"--xx\r\n" + b"a: b\r\n" * 10_000, "not a complete form"),
}


async def test_a_small_file_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_full_disk(dir: Path, **options: Any) -> IO[bytes]:
        return Path("/dev/full").open("w+b", **options)

    monkeypatch.setattr("tempfile.TemporaryFile", on_full_disk)
    async with serving(tmp_path) as running:
        status, answer = await send(running, form(PURPOSE, FILE))
    assert (status, answer["error"]["code"]) == (503, "store_unavailable")
    assert answer["error"]["message"] == "the file cannot be kept: No space left on device"


@pytest.mark.parametrize(("body", "words"), BAD_FORMS.values(), ids=BAD_FORMS.keys())
async def test_bad_forms(running: Serving, body: bytes, words: str) -> None:
    status, answer = await send(running, body)
    assert status == 400
    assert words in answer["error"]["message"]
    async with running.http.get(f"{running.url}/files") as listed:
        assert (await listed.json())["data"] == []


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'x' * 300}",
    ],
)
async def test_what_is_no_form_is_refused(running: Serving, kind: str) -> None:
    assert (await send(running, form(PURPOSE, FILE), {"content-type": kind}))[0] == 400


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_a_form_may_come_in_pieces_of_any_size(tmp_path: Path, step: int) -> None:
    content = b"\r\n--x\r\n--xy\r\n-- xx--\r" * 20
    body = form(part("other", b"y"), PURPOSE, part("file", content, 'filename="caf\u00e9.txt"'))
    with (tmp_path / "file").open("w+b") as file:
        reader = Form(b"xx", file)
        for start in range(0, len(body), step):
            reader.feed(body[start : start + step])
        upload = reader.upload()
        assert (upload.filename, upload.purpose, upload.size_bytes) == ("caf\u00e9.txt", "assistants", len(content))
        assert upload.content.read() == content


async def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    """Up and down again: 24 MiB with less than a quarter of that in memory."""
    line = b"the animal purrs, and the animal barks at the one that purrs. " * 1057
    size = 24 * MB // len(line) * len(line)

    async def pieces() -> AsyncIterator[bytes]:
        yield PURPOSE + b"\r\n" + part("file", b"", 'filename="a.txt"')
        for _ in range(size // len(line)):
            yield line
        yield b"\r\n--xx--\r\n"

    async with serving(tmp_path, config=retrieval_config(max_file_mb=32)) as running:
        tracemalloc.start()
        try:
            status, file = await send(running, pieces())
            assert (status, file.get("bytes")) == (200, size)
            received = 0
            async with running.http.get(f"{running.url}/files/{file['id']}/content") as answer:
                assert int(answer.headers["content-length"]) == size
                async for piece in answer.content.iter_chunked(65536):
                    place = received % len(line)
                    assert piece[:100] == (line * 2)[place : place + 100][: len(piece)]
                    received += len(piece)
            assert received == size
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 6 * MB
        assert running.gateway.parts.body_limits.held_bytes == 0
        with running.store.transaction("count") as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM retrieval_file_parts").scalar_one() == 24
        async with running.http.delete(f"{running.url}/files/{file['id']}") as answer:
            assert answer.status == 200
        with running.store.transaction("count") as connection:
            assert connection.execute(select(FilePartRow)).all() == []


async def test_an_upload_takes_a_fixed_room_and_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.gateway.http.admission.MAX_LARGE", 2)
    gate = asyncio.Event()

    async def held_back() -> AsyncIterator[bytes]:
        yield PURPOSE + b"\r\n"
        await gate.wait()
        yield FILE + b"\r\n--xx--\r\n"

    async with serving(tmp_path) as running:
        body_limits = running.gateway.parts.body_limits
        sending = [asyncio.create_task(send(running, held_back())) for _ in range(2)]
        await until(lambda: body_limits.held_bytes == 2 * MEMORY_BYTES)
        status, answer = await send(running, form(PURPOSE, FILE))
        assert (status, answer["error"]["code"]) == (429, "too_many_bodies")
        gate.set()
        assert [status for status, _ in await asyncio.gather(*sending)] == [200, 200]
        assert (await send(running, form(PURPOSE, FILE)))[0] == 200
        assert body_limits.held_bytes == 0


async def test_a_disk_that_takes_nothing_is_a_503(running: Serving, tmp_path: Path) -> None:
    stores = running.service.stores.files
    stores.incoming.rmdir()
    status, answer = await send(running, form(PURPOSE, FILE))
    assert (status, answer["error"]["code"]) == (503, "store_unavailable")
    assert str(tmp_path) not in answer["error"]["message"]
    stores.incoming.mkdir()
    assert (await send(running, form(PURPOSE, FILE)))[0] == 200


def test_a_boundary_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file, pytest.raises(RouterError, match="not a complete form"):
        Form(b"x" * 1000, file)
