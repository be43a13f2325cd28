"""Bodies beyond what a gateway takes at once are refused, and what it took is bounded."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
import yaml

from tests.gateway.served import end_gateway, start_gateway
from tests.small_composition import composition_of
from tests.waiting import until

MB = 1024 * 1024
MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "16777216",
}
"""As docs/deploy.md has them."""

EXPERTS_FILE = composition_of(
    {"ruby": {"engine": "echo", "model": "echo"}},
    retrieval={"encoder": {"kind": "hashing", "dim": 64}},
    gateway={"drain_s": 0},
)


@pytest.mark.slow
async def test_a_flood_of_large_bodies_and_uploads_is_bounded_and_forgotten(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(EXPERTS_FILE))
    process, url = await asyncio.to_thread(start_gateway, tmp_path / "e.yaml", tmp_path / "data", **MALLOC)
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
