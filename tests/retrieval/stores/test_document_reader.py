"""Hostile documents end in chunks or in a sentence, within limits, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval.stores.chunking import StaticChunking
from retrieval.stores.document_reader import PROGRAM, DocumentReader, ReaderDiedError, ReadingLimits
from retrieval.stores.document_text import UnreadableFileError
from retrieval.stores.reading_process import write_chunks
from tests.processes import descendants_of
from tests.retrieval.stores.pdf import pdf_of, slow_pdf
from tests.waiting import DEADLINE_S, until, wait_until

LIMITS = ReadingLimits(cpu_s=20, wall_s=110.0, memory_bytes=512 << 20)
CHUNKING = StaticChunking(max_chunk_size_tokens=200, chunk_overlap_tokens=40)


@pytest.fixture
async def reader() -> AsyncIterator[DocumentReader]:
    made = DocumentReader(LIMITS)
    yield made
    await made.aclose()


def process_of(reader: DocumentReader) -> int:
    """The id of the process that waits for the next document."""
    process = reader._idle[-1]._process
    return process.pid


async def outcome_of(reader: DocumentReader, name: str, content: bytes, limits: ReadingLimits = LIMITS) -> str:
    """The chunks with `|` between them, or the reason why there are none."""
    async with reader.place() as process:
        process._limits = limits
        try:
            return "|".join(await process.read(name, lambda out: out.write(content), CHUNKING))
        except UnreadableFileError as error:
            return str(error)


async def until_gone(path: Path) -> None:
    await until(lambda: not path.exists(), f"the end of {path}")


NO_TEXT = "the file holds no text (a scanned PDF holds pictures of it)"
TOO_DEEP = "the HTML is nested more than 2000 deep"
HOSTILE = {
    "tags in tags": (b"<a " * 650_000, NO_TEXT),
    "comments in comments": (b"<!--" * 500_000, NO_TEXT),
    "declarations": (b"<!a " * 500_000, NO_TEXT),
    "deep bold": (b"<b>" * 650_000 + b"x", TOO_DEEP),
    "deep tables": (b"<table><tr><td>" * 130_000 + b"x", TOO_DEEP),
    "deep lists": (b"<div>" * 200 + b"<dd></x>" * 250_000, TOO_DEEP),
    "tables beside each other": (b"<table><tr><td></td></tr></table>" * 60_000 + b"x", "x"),
    "bold in each paragraph": (b"".join(b"<b id=%d><p></b>" % number for number in range(100_000)) + b"x", "x"),
    "attributes": (b"<p " + b" ".join(b"a%d=1" % number for number in range(250_000)) + b">x", "x"),
    "one name of many": (b"<p " + b"a=1 " * 500_000 + b">x", "x"),
    "long entity": (b"<p>x&#" + b"9" * 2_000_000, "x\N{REPLACEMENT CHARACTER}"),
    "entities": (b"<p>" + b"&lt;" * 6 + b"&#32;" * 500_000, "<<<<<<"),
    "open script": (b"x<script>" + b"</scrip" * 250_000, "x"),
    "end tags": (b"x" + b"</p></x>" * 250_000, "x"),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_hostile_html_is_read_in_linear_time(reader: DocumentReader, case: str) -> None:
    markup, expected = HOSTILE[case]
    assert await outcome_of(reader, "a.html", b"<html>" + markup) == expected


async def test_what_takes_too_much_is_given_up_with_a_sentence(reader: DocumentReader) -> None:
    short = replace(LIMITS, cpu_s=1)
    assert await outcome_of(reader, "a.pdf", slow_pdf(), short) == (
        "reading the file takes more than the 1 s of processor time that are allowed"
    )
    brief = replace(LIMITS, wall_s=0.2)
    assert await outcome_of(reader, "a.pdf", slow_pdf(), brief) == (
        "reading the file takes more than the 0.2 s that are allowed"
    )
    if sys.platform == "linux":
        small = replace(LIMITS, memory_bytes=192 << 20)
        assert await outcome_of(reader, "a.txt", b"x " * 12_000_000, small) == (
            "reading the file takes more than the 192 MB of memory that are allowed"
        )
    assert await outcome_of(reader, "a.txt", b"the next one") == "the next one"


def test_a_file_of_too_many_chunks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("retrieval.stores.reading_process.MAX_CHUNKS", 3)
    write_chunks("x " * 300, 100, 0)
    with pytest.raises(UnreadableFileError, match="more than 3 chunks of 100 tokens: split it, or ask for larger ones"):
        write_chunks("x " * 301, 100, 0)


async def test_ordinary_files_have_the_same_process_and_nothing_of_each_other(reader: DocumentReader) -> None:
    assert await outcome_of(reader, "a.pdf", pdf_of("Page text")) == "Page text"
    first = process_of(reader)
    assert await outcome_of(reader, "a.txt", b"\n") == NO_TEXT
    assert await outcome_of(reader, "a.md", b"sentence one. " * 200) != ""
    assert await outcome_of(reader, "a.txt", "ü\n\n\nß".encode()) == "ü\n\nß"
    assert process_of(reader) == first
    if sys.platform == "linux":
        assert Path(f"/proc/{first}/environ").read_bytes() == b""


async def test_a_reader_that_died_is_replaced(reader: DocumentReader) -> None:
    assert await outcome_of(reader, "a.txt", b"one") == "one"
    os.kill(process_of(reader), signal.SIGKILL)
    with pytest.raises(ReaderDiedError):
        await outcome_of(reader, "a.txt", b"two")
    assert await outcome_of(reader, "a.txt", b"two") == "two"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_who_gives_up_ends_the_process_and_its_child(reader: DocumentReader) -> None:
    async with reader.place() as process:
        reading = asyncio.create_task(process.read("a.pdf", lambda out: out.write(slow_pdf()), CHUNKING))
        pid = (await until(lambda: process._process, "a process")).pid
        child = await until(lambda: descendants_of(pid), "a child")
        reading.cancel()
        await asyncio.wait([reading])
    for number in (pid, *child):
        await until_gone(Path(f"/proc/{number}"))
    await until_gone(process._folder)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_gateway_that_is_killed_while_it_reads_leaves_no_document(tmp_path: Path) -> None:
    folder = tmp_path / "reading"
    folder.mkdir()
    (folder / "document").write_bytes(slow_pdf())
    job = {"filename": "a.pdf", "max_tokens": 200, "overlap_tokens": 40, "cpu_s": 60, "wall_s": 60}
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
    )
    with process.stdin, process.stdout:
        process.stdin.write(json.dumps(job | {"memory_bytes": 512 << 20}).encode() + b"\n")
        process.stdin.flush()
        wait_until(lambda: descendants_of(process.pid), "a child")
    process.wait(DEADLINE_S)
    assert not folder.exists()


async def test_the_process_ends_with_the_gateway_and_takes_its_folder(reader: DocumentReader) -> None:
    assert await outcome_of(reader, "a.txt", b"secret") == "secret"
    process = reader._idle[-1]
    assert (process._folder / "document").read_bytes() == b"secret"
    process._process.stdin.close()  # as the kernel does when the gateway is killed
    await until_gone(process._folder)
    assert await process._process.wait() == 0
