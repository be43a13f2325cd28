"""`kill -9` of a gateway while it reads files: what was said to be complete is found, and the rest is read after it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import openai
import pytest
import yaml

from tests.gateway.served import end_gateway, start_gateway
from tests.small_composition import composition_of

EXPERTS_FILE = composition_of(
    {"ruby": {"engine": "echo", "model": "echo"}}, retrieval={"encoder": {"kind": "hashing", "dim": 64}}
)
FILES = 40


@pytest.mark.slow
async def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(EXPERTS_FILE))
    texts = [f"note {number} " + f"subject{number} " * 3000 for number in range(FILES)]
    process, url = await asyncio.to_thread(start_gateway, tmp_path / "e.yaml", tmp_path / "data")
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        store = await client.vector_stores.create(name="notes")
        for number, text in enumerate(texts):
            file = await client.files.create(file=(f"{number}.txt", text.encode()), purpose="assistants")
            await client.vector_stores.files.create(store.id, file_id=file.id)
        while (counts := (await client.vector_stores.retrieve(store.id)).file_counts).completed < FILES // 3:
            pass
        done = [each.id async for each in client.vector_stores.files.list(store.id, filter="completed")]
    end_gateway(process, signal.SIGKILL)
    assert counts.completed < FILES, "all were read before the kill"
    process, url = await asyncio.to_thread(start_gateway, tmp_path / "e.yaml", tmp_path / "data")
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        still = [each.id async for each in client.vector_stores.files.list(store.id, filter="completed")]
        assert set(done) <= set(still)
        while (await client.vector_stores.retrieve(store.id)).file_counts.completed < FILES:
            pass
        for number in range(FILES):
            page = await client.vector_stores.search(store.id, query=f"subject{number}", max_num_results=1)
            assert page.data[0].filename == f"{number}.txt"
    end_gateway(process, signal.SIGTERM)
    assert process.returncode == 0
