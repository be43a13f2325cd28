"""Hostile documents end in chunks or in a sentence, within limits, and leave nothing behind."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coe.retrieval.stores.chunking import StaticChunking
from coe.retrieval.stores.document_reader import DocumentReader, ReaderDiedError, ReadingLimits
from coe.retrieval.stores.document_text import UnreadableFileError
from coe.retrieval.stores.reading_process import write_chunks
from tests.processes import command_of, descendants_of
from tests.retrieval.stores.pdf import pdf_of, slow_pdf
from tests.waiting import DEADLINE_S, until, wait_until

LIMITS = ReadingLimits(cpu_s=20, wall_s=110.0, memory_bytes=512 << 20)
CHUNKING = StaticChunking(max_chunk_size_tokens=200, chunk_overlap_tokens=40)


@pytest.fixture
async def reader() -> DocumentReader:
    return DocumentReader(LIMITS)


async def outcome_of(reader: DocumentReader, name: str, content: bytes, limits: ReadingLimits = LIMITS) -> str:
    """The chunks with `|` between them, or the reason why there are none."""
    async with reader.place() as process:
        try:
            read = replace(process, limits=limits).read
            return "|".join(await read(name, lambda out: out.write(content), CHUNKING))
        except UnreadableFileError as error:
            return str(error)


def readers_of(gateway: int) -> list[int]:
    """The ids of the processes that read documents for a gateway."""
    return [child for child in descendants_of(gateway) if "reading_process" in command_of(child)]


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


def test_a_file_of_too_many_chunks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.retrieval.stores.reading_process.MAX_CHUNKS", 3)
    write_chunks(io.BytesIO(), "x " * 300, 100, 0)
    with pytest.raises(UnreadableFileError, match="more than 3 chunks of 100 tokens: split it, or ask for larger ones"):
        write_chunks(io.BytesIO(), "x " * 301, 100, 0)


async def test_ordinary_files_are_read(reader: DocumentReader) -> None:
    assert await outcome_of(reader, "a.pdf", pdf_of("Page text")) == "Page text"
    assert await outcome_of(reader, "a.txt", b"\n") == NO_TEXT
    assert await outcome_of(reader, "a.md", b"sentence one. " * 200) != ""
    assert await outcome_of(reader, "a.txt", "ü\n\n\nß".encode()) == "ü\n\nß"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_reader_that_is_killed_is_not_the_files_fault(reader: DocumentReader) -> None:
    task = asyncio.create_task(outcome_of(reader, "a.pdf", slow_pdf()))
    (pid,) = await until(lambda: readers_of(os.getpid()), "a process")
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ReaderDiedError):
        await task
    assert await outcome_of(reader, "a.txt", b"two") == "two"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_who_gives_up_ends_the_process(reader: DocumentReader) -> None:
    task = asyncio.create_task(outcome_of(reader, "a.pdf", slow_pdf()))
    (pid,) = await until(lambda: readers_of(os.getpid()), "a process")
    task.cancel()
    await asyncio.wait([task])
    await until_gone(Path(f"/proc/{pid}"))


GATEWAY = """
import asyncio, sys
from coe.retrieval.stores.chunking import StaticChunking
from coe.retrieval.stores.document_reader import DocumentReader, ReadingLimits
from tests.retrieval.stores.pdf import slow_pdf
async def main():
    async with DocumentReader(ReadingLimits(60, 60.0, 512 << 20)).place() as process:
        chunking = StaticChunking(max_chunk_size_tokens=200, chunk_overlap_tokens=40)
        await process.read("a.pdf", lambda out: out.write(slow_pdf()), chunking)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_gateway_that_is_killed_while_it_reads_leaves_no_process_and_no_document(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    gateway = subprocess.Popen([sys.executable, "-c", GATEWAY], env=environment)
    (pid,) = wait_until(lambda: readers_of(gateway.pid), "a child")
    wait_until(lambda: int(Path(f"/proc/{pid}/stat").read_text().split()[18]) > 0, "the program's niceness")
    gateway.kill()
    gateway.wait(DEADLINE_S)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "its end")
    assert not list(tmp_path.iterdir())
