"""`kill -9` of a gateway in the middle of a batch: the next one continues, and every line has one result."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from coe.gateway.lifecycle.composition import BATCH_SHARE
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.served import end_gateway, start_gateway
from tests.small_composition import composition_of
from tests.waiting import until, wait_until

LINES = 120
CONCURRENCY = 4


def experts_file(folder: Path, url: str) -> Path:
    path = folder / "e.yaml"
    ruby = {"engine": "openai", "model": "ruby", "url": url}
    path.write_text(
        yaml.safe_dump(composition_of({"ruby": ruby}, gateway={"max_concurrency": CONCURRENCY * BATCH_SHARE}))
    )
    return path


def line(number: int) -> str:
    body = {"model": "ruby", "messages": [{"role": "user", "content": f"question {number}"}]}
    return json.dumps({"custom_id": f"q{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})


def made_batch(client: openai.OpenAI) -> str:
    content = "\n".join([*map(line, range(LINES)), "{"]).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    asked = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    return asked.id


def kept_answers(data: Path) -> set[str]:
    """The questions whose answers a gateway that was killed has kept."""
    with closing(sqlite3.connect(data / "coe.db")) as database:
        rows = database.execute("SELECT line FROM batch_results WHERE NOT is_error").fetchall()
    return {json.loads(line)["custom_id"].replace("q", "question ") for (line,) in rows}


def ended_batch(client: openai.OpenAI, batch_id: str) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """The batch, its output and its errors."""
    wait_until(lambda: client.batches.retrieve(batch_id).status not in ("validating", "in_progress"))
    batch = client.batches.retrieve(batch_id)
    files = (client.files.content(batch.output_file_id).text, client.files.content(batch.error_file_id).text)
    output, errors = ([json.loads(each) for each in text.splitlines()] for text in files)
    return batch, output, errors


@pytest.mark.slow
async def test_a_killed_gateway_loses_no_result_and_asks_none_again(tmp_path: Path) -> None:
    async with fault_upstream("gated") as upstream:
        config, data = experts_file(tmp_path, upstream.url), tmp_path / "data"
        upstream.gate.set()
        process, url = await asyncio.to_thread(start_gateway, config, data)
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            batch_id = await asyncio.to_thread(made_batch, client)
            await until(lambda: len(upstream.requests) > LINES // 4)
            upstream.gate.clear()
            before = (await asyncio.to_thread(client.batches.retrieve, batch_id)).request_counts
        await asyncio.to_thread(end_gateway, process, signal.SIGKILL)
        answered = kept_answers(data)
        assert 0 < before.completed <= len(answered) < LINES
        upstream.gate.set()
        process, url = await asyncio.to_thread(start_gateway, config, data)
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            batch, output, errors = await asyncio.to_thread(ended_batch, client, batch_id)
        await asyncio.to_thread(end_gateway, process, signal.SIGTERM)
    assert (batch.status, batch.request_counts.model_dump()) == (
        "completed",
        {"total": LINES + 1, "completed": LINES, "failed": 1},
    )
    assert [each["custom_id"] for each in output] == [f"q{number}" for number in range(LINES)]
    assert [each["error"]["code"] for each in errors] == ["invalid_json_line"]
    asked = Counter(request["messages"][0]["content"] for request in upstream.requests)
    twice = {text for text, count in asked.items() if count > 1}
    assert max(asked.values()) <= 2
    assert len(twice) <= CONCURRENCY, "only lines that were being answered at the kill are asked again"
    assert not twice & answered
    assert process.returncode == 0
