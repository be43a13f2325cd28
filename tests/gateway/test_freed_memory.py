"""Memory of requests goes back to the system."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gateway import freed_memory
from gateway.freed_memory import FreedMemory, glibc
from gateway.intake import Claim, Intake
from tests.gateway.served import end_gateway, start_gateway
from tests.small_composition import composition_of
from tests.waiting import until

MB = 1024 * 1024
needs_glibc = pytest.mark.skipif(
    sys.platform != "linux" or glibc() is None, reason="only glibc keeps memory that was freed"
)

PROGRAM = """
import os, sys
from gateway.freed_memory import keep_large_blocks_apart, trim_heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def use(size, count):
    bytes(size)                     # from the first freed block on glibc keeps blocks of its size
    blocks = [b"x" * size for _ in range(count)]
    pin = b"y" * 100_000            # above them, as something that lives longer always is
    del blocks
    return pin

if "apart" in sys.argv:
    keep_large_blocks_apart()
before = resident()
pin = use(int(sys.argv[1]), int(sys.argv[2]))
if "trim" in sys.argv:
    trim_heap()
print(resident() - before)
"""


def kept_after(*arguments: str) -> int:
    """Bytes that a process has more after it freed a hundred megabytes."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return int(run.stdout)


@needs_glibc
def test_large_blocks_go_back_at_once_and_small_ones_when_told() -> None:
    assert kept_after(str(2 * MB), "50") > 50 * MB, "glibc gives them back by itself: this module is superfluous"
    assert kept_after(str(2 * MB), "50", "apart") < 10 * MB
    assert kept_after("50000", "2000", "apart") > 50 * MB
    assert kept_after("50000", "2000", "apart", "trim") < 10 * MB


async def test_memory_is_returned_once_for_many_requests_and_again_for_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(freed_memory, "PAUSE_S", 0.0)
    calls: list[int] = []
    monkeypatch.setattr(freed_memory, "trim_heap", lambda: calls.append(1))
    intake = Intake(1, 1, 1)
    for _ in range(40):
        with Claim(intake, "somebody"):
            pass
    await until(lambda: calls == [1])

    async def asks_again() -> bool:
        with Claim(intake, "somebody"):
            return len(calls) == 2

    await until(asks_again)


async def test_what_ends_while_memory_is_returned_is_returned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "PAUSE_S", 0.0)
    calls: list[int] = []
    freed = FreedMemory()

    def trim() -> None:
        calls.append(1)
        if len(calls) == 1:
            freed.note()

    monkeypatch.setattr(freed_memory, "trim_heap", trim)
    freed.note()
    await until(lambda: calls == [1, 1])


EXPERTS_FILE = composition_of(
    {"ruby": {"engine": "echo", "model": "echo"}},
    retrieval={"encoder": {"kind": "hashing", "dim": 64}},
    gateway={"drain_s": 0},
)


@pytest.mark.slow
@needs_glibc
async def test_a_flood_of_large_bodies_and_uploads_is_bounded_and_forgotten(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(EXPERTS_FILE))
    process, url = await asyncio.to_thread(start_gateway, tmp_path / "e.yaml", tmp_path / "data")
    port = int(url.rsplit(":", 1)[1].removesuffix("/v1"))
    chat = {"model": "ruby", "messages": [{"role": "user", "content": "x" * 4_190_000}]}
    purpose = b'--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
    file = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"y" * 30_000_000
    form = purpose + file + b"\r\n--xx--\r\n"
    try:
        await asyncio.gather(*(post(port, "/v1/chat/completions", b"{}") for _ in range(20)))
        before = resident(process.pid)
        for path, body, count in (("/v1/chat/completions", json.dumps(chat).encode(), 300), ("/v1/files", form, 40)):
            peak = before
            flood = [asyncio.create_task(post(port, path, body)) for _ in range(count)]
            while not all(task.done() for task in flood):
                peak = max(peak, resident(process.pid))
                await asyncio.sleep(0.02)
            statuses = {task.result() for task in flood}
            assert statuses <= {200, 400, 429}
            assert 429 in statuses
            assert peak - before < 400 * MB
            await until(lambda: resident(process.pid) - before < 60 * MB, "memory is given back")
    finally:
        await asyncio.to_thread(end_gateway, process, signal.SIGTERM)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def post(port: int, path: str, body: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    kind = "multipart/form-data; boundary=xx" if path == "/v1/files" else "application/json"
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"

    async def send() -> None:
        writer.write(head.encode())
        for start in range(0, len(body), 65536):
            writer.write(body[start : start + 65536])
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        return int((await asyncio.wait_for(reader.readline(), 600)).split()[1])
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
