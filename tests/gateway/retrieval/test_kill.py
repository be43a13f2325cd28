"""`kill -9` of a gateway while it reads files: what was said to be complete is found, and the rest is read after it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest
import yaml

EXPERTS_FILE = {
    "categories": {"red": "red", "general": "the rest"},
    "experts": {"ruby": {"engine": "echo", "model": "echo"}},
    "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
    "retrieval": {"encoder": {"kind": "hashing", "dim": 64}},
}
FILES = 40
DEADLINE_S = 60.0


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A gateway on a free port, and its URL."""
    environment = {
        **os.environ,
        "COE_DATA_DIR": str(folder / "data"),
        "COE_PORT": "0",
        "COE_CONFIG": str(folder / "e.yaml"),
    }
    command = [sys.executable, "-m", "router.cli", "serve"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"gateway at (http://\S+)", line)
        if found:
            return process, found[1]
    raise AssertionError("the gateway did not start")


def kill(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    process.wait(timeout=30)
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.slow
async def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(EXPERTS_FILE))
    texts = [f"note {number} " + f"subject{number} " * 300 for number in range(FILES)]
    process, url = await asyncio.to_thread(start, tmp_path)
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        store = await client.vector_stores.create(name="notes")
        for number, text in enumerate(texts):
            file = await client.files.create(file=(f"{number}.txt", text.encode()), purpose="assistants")
            await client.vector_stores.files.create(store.id, file_id=file.id)
        while (counts := (await client.vector_stores.retrieve(store.id)).file_counts).completed < FILES // 3:
            pass
        done = [each.id async for each in client.vector_stores.files.list(store.id, filter="completed")]
    kill(process, signal.SIGKILL)
    assert counts.completed < FILES, "all were read before the kill"
    process, url = await asyncio.to_thread(start, tmp_path)
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        still = [each.id async for each in client.vector_stores.files.list(store.id, filter="completed")]
        assert set(done) <= set(still)
        deadline = time.monotonic() + DEADLINE_S
        while (await client.vector_stores.retrieve(store.id)).file_counts.completed < FILES:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        for number in range(FILES):
            page = await client.vector_stores.search(store.id, query=f"subject{number}", max_num_results=1)
            assert page.data[0].filename == f"{number}.txt"
    kill(process, signal.SIGTERM)
    assert process.returncode == 0
