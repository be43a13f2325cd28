"""Batches as OpenAI's client makes them, through a gateway's router, limits and log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from coe.decision_log.database import Database
from coe.fleet.calls.backend import ChatBackend
from coe.gateway.batches import runner
from coe.gateway.batches.batch_store import BatchStore
from coe.gateway.batches.runner import BatchRunner, Places, wait_s
from coe.gateway.http.inner_request import Answer
from coe.gateway.keys.grants import Caller
from coe.gateway.lifecycle.composition import BATCH_SHARE, make_runner
from coe.retrieval.stores.files import Files
from tests.gateway.fault_upstream import FaultUpstream, fault_upstream
from tests.gateway.keys.test_chat_limits import Known, caller_with
from tests.gateway.running import Running, echoes, provider, running
from tests.gateway.telemetry.collector import collecting, exporting_to
from tests.waiting import DEADLINE_S, until

CHAT = "/v1/chat/completions"
ENDED = {"completed", "cancelled", "expired", "failed"}


@dataclass
class Batching:
    """A gateway that runs batches, and OpenAI's client of it."""

    gateway: Running
    store: BatchStore
    client: openai.AsyncOpenAI

    def runner(self, name: str = "runner") -> BatchRunner:
        return make_runner(self.gateway.gateway, self.store, name)

    async def make(self, lines: Iterable[bytes], **options: Any) -> Any:
        content = b"\n".join(lines)
        file = await self.client.files.create(file=("in.jsonl", content), purpose="batch")
        asked = {"endpoint": CHAT, "completion_window": "24h", **options}
        return await self.client.batches.create(input_file_id=file.id, **asked)

    async def ended(self, batch: Any) -> Any:
        async def found() -> Any:
            now = await self.client.batches.retrieve(batch.id)
            return now if now.status in ENDED else None

        return await until(found, "the end of the batch")

    async def results(self, file_id: str | None) -> dict[str, Any]:
        """Results by custom_id, each there once."""
        if file_id is None:
            return {}
        text = (await self.client.files.content(file_id)).text
        found = [json.loads(line) for line in text.splitlines()]
        by_id = {each["custom_id"]: each for each in found}
        assert len(by_id) == len(found)
        return by_id


class KnownLater(Known):
    """Lines are of that caller too, unless its key has ended."""

    def __init__(self, caller: Caller, *, has_ended: bool = False) -> None:
        super().__init__(caller)
        self._has_ended = has_ended

    def known(self, key_id: str | None) -> Caller | None:
        return None if self._has_ended else self._caller


@asynccontextmanager
async def batching(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    backends: Mapping[str, ChatBackend] | None = None,
    *,
    runs: bool = True,
    **options: Any,
) -> AsyncIterator[Batching]:
    monkeypatch.setattr(runner, "POLL_S", 0.02)
    database = Database(f"sqlite:///{folder / 'coe.db'}")
    store = BatchStore(Files(database, folder / "incoming"))
    try:
        async with (
            running(backends, batches=store, **options) as gateway,
            openai.AsyncOpenAI(base_url=gateway.gateway.url, api_key="none", max_retries=0) as client,
        ):
            made = Batching(gateway, store, client)
            running_batches = made.runner()
            if runs:
                await running_batches.start()
            try:
                yield made
            finally:
                await running_batches.aclose()
    finally:
        database.close()


def line(custom_id: str, text: str = "red", url: str = CHAT, **body: Any) -> bytes:
    asked = {"model": "auto", "messages": [{"role": "user", "content": text}], **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": asked}).encode()


async def test_each_line_is_answered_through_the_router_or_said_to_be_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line(f"q{n}", f"{('red', 'green')[n % 2]} {n}") for n in range(20)]
    wrong = [b"{", line("q0"), line("nowhere", model="nobody"), line("elsewhere", url="/v1/completions"), b""]
    async with batching(tmp_path, monkeypatch) as made:
        batch = await made.make([*lines, *wrong], metadata={"job": "nightly"})
        assert batch.status == "validating"
        ended = await made.ended(batch)
        assert (ended.status, ended.metadata, ended.errors) == ("completed", {"job": "nightly"}, None)
        assert ended.request_counts.model_dump() == {"completed": 20, "failed": 4, "total": 24}
        assert ended.completed_at >= ended.in_progress_at >= ended.created_at == ended.expires_at - 86_400
        results = await made.results(ended.output_file_id)
        assert list(results) == [f"q{n}" for n in range(20)]
        logged = {record.decision_id: record for record in made.gateway.log.records}
        for n, result in enumerate(results.values()):
            answer, expert = result["response"], ("ruby", "emerald")[n % 2]
            assert answer["body"]["choices"][0]["message"]["content"] == f"{('red', 'green')[n % 2]} {n}"
            assert (answer["status_code"], logged[answer["decision_id"]].served_expert) == (200, expert)
        text = (await made.client.files.content(ended.error_file_id)).text
        errors = [json.loads(each) for each in text.splitlines()]
        assert [each["custom_id"] for each in errors] == [None, "q0", "nowhere", "elsewhere"]
        codes = [each["error"] and each["error"]["code"] for each in errors]
        assert codes == ["invalid_json_line", "duplicate_custom_id", None, "invalid_value"]
        assert errors[2]["response"]["status_code"] == 404
        assert errors[2]["response"]["body"]["error"]["code"] == "model_not_found"
        assert [each.id async for each in made.client.batches.list(limit=1)] == [batch.id]
        file = await made.client.files.retrieve(ended.output_file_id)
        assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")


async def test_other_apis_than_chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(tmp_path, monkeypatch) as made:
        for url, body in (("/v1/responses", {"input": "red 1"}), ("/v1/completions", {"prompt": "red 1"})):
            asked = {"custom_id": "a", "method": "POST", "url": url, "body": {"model": "ruby", **body}}
            ended = await made.ended(await made.make([json.dumps(asked).encode()], endpoint=url))
            results = await made.results(ended.output_file_id)
            assert "red 1" in json.dumps(results["a"]["response"]["body"])


async def test_lines_are_traced_as_requests_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        collecting() as collector,
        exporting_to(collector.url, monkeypatch) as telemetry,
        batching(tmp_path, monkeypatch, telemetry=telemetry) as made,
    ):
        ended = await made.ended(await made.make([line("a")]))
        assert ended.request_counts.completed == 1
        await until(lambda: f"POST {CHAT}" in {span.name for span in collector.spans})


REFUSED: Sequence[tuple[dict[str, Any], int, str]] = [
    ({"endpoint": "/v1/moderations"}, 400, "endpoint"),
    ({"completion_window": "soon"}, 400, "completion_window"),
    ({"input_file_id": "file-nothing"}, 404, "there is no file"),
    ({"endpoint": "/v1/embeddings"}, 404, "retrieval"),
    ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata"),
    ({"extra_body": {"priority": 1}}, 400, "priority"),
]


@pytest.mark.parametrize(("options", "status", "words"), REFUSED)
async def test_what_is_no_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], status: int, words: str
) -> None:
    async with batching(tmp_path, monkeypatch) as made:
        file = await made.client.files.create(file=("in.jsonl", line("a")), purpose="batch")
        asked: dict[str, Any] = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **options}
        with pytest.raises(openai.APIStatusError, match=words) as refused:
            await made.client.batches.create(**asked)
        assert refused.value.status_code == status
        assert [each async for each in made.client.batches.list()] == []


async def test_files_of_batches_have_a_purpose_and_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.gateway.http.upload.MAX_BATCH_BYTES", 100)
    async with batching(tmp_path, monkeypatch) as made:
        with pytest.raises(openai.APIStatusError, match="at most 100") as large:
            await made.make([b"x" * 101])
        assert large.value.status_code == 413
        file = await made.client.files.create(file=("a.txt", b"text"), purpose="user_data")
        with pytest.raises(openai.BadRequestError, match="user_data; allowed: batch"):
            await made.client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        ended = await made.ended(await made.make([b" ", b""]))
        assert (ended.status, ended.errors.data[0].message) == ("failed", "the file has 0 lines; allowed: 1 to 50000")
        await made.client.files.delete(file.id)
        assert [each.filename async for each in made.client.files.list(purpose="user_data")] == []


async def test_a_gateway_without_a_database_says_so() -> None:
    async with running() as gateway, gateway.client.get(f"{gateway.gateway.url}/batches") as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["code"] == "files_unavailable"


async def held(upstream: FaultUpstream, count: int) -> None:
    await until(lambda: len(upstream.requests) == count)


async def test_what_runs_at_a_cancel_ends_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        fault_upstream("gated") as upstream,
        batching(tmp_path, monkeypatch, echoes(ruby=provider(upstream.url)), max_concurrency=2 * BATCH_SHARE) as made,
    ):
        batch = await made.make([line(f"q{n}", model="ruby") for n in range(50)])
        await held(upstream, 2)
        assert (await made.client.batches.cancel(batch.id)).status == "cancelling"
        upstream.gate.set()
        ended = await made.ended(batch)
        assert (ended.status, ended.request_counts.total) == ("cancelled", 50)
        assert ended.cancelled_at >= ended.cancelling_at
        kept = await made.results(ended.output_file_id)
        assert list(kept) == [f"q{n}" for n in range(len(upstream.requests))]
        with pytest.raises(openai.NotFoundError):
            await made.client.batches.cancel("batch_none")


async def test_lines_that_the_window_leaves_are_in_the_error_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        fault_upstream("gated") as upstream,
        batching(tmp_path, monkeypatch, echoes(ruby=provider(upstream.url)), max_concurrency=1 * BATCH_SHARE) as made,
    ):
        batch = await made.make([line(f"q{n}", model="ruby") for n in range(5)])
        await held(upstream, 1)
        late_s = made.store.batch("", batch.id).expires_at + 1.0
        monkeypatch.setattr(runner, "time", SimpleNamespace(time=lambda: late_s, monotonic=time.monotonic))
        upstream.gate.set()
        ended = await made.ended(batch)
        assert (ended.status, ended.request_counts.model_dump()) == (
            "expired",
            {"completed": 1, "failed": 4, "total": 5},
        )
        assert list(await made.results(ended.output_file_id)) == ["q0"]
        left = await made.results(ended.error_file_id)
        assert {each["error"]["code"] for each in left.values()} == {"batch_expired"}
        assert list(left) == ["q1", "q2", "q3", "q4"]


async def test_another_gateway_continues_where_one_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        fault_upstream("gated") as upstream,
        batching(
            tmp_path, monkeypatch, echoes(ruby=provider(upstream.url)), max_concurrency=2 * BATCH_SHARE, runs=False
        ) as made,
    ):
        batch = await made.make([line(f"q{n}", f"text {n}", model="ruby") for n in range(6)])
        first, second = made.runner("first"), made.runner("second")
        await first.start()
        await held(upstream, 2)
        await second.start()
        await first.aclose()
        await held(upstream, 4)
        upstream.gate.set()
        ended = await made.ended(batch)
        await second.aclose()
        assert (ended.status, ended.request_counts.completed) == ("completed", 6)
        assert list(await made.results(ended.output_file_id)) == [f"q{n}" for n in range(6)]
        asked = [request["messages"][0]["content"] for request in upstream.requests]
        assert sorted(asked) == sorted([f"text {n}" for n in range(6)] + ["text 0", "text 1"])


async def test_a_budget_is_kept_and_the_batch_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    auth = KnownLater(caller_with(requests=3))
    async with batching(tmp_path, monkeypatch, auth=auth, redis_url=redis_url) as made:
        batch = await made.make([line(f"q{n}") for n in range(8)])
        await until(lambda: made.store.batch("acme", batch.id).completed == 3)
        found = await made.client.batches.retrieve(batch.id)
        assert (found.status, found.request_counts.failed) == ("in_progress", 0)
        await made.client.batches.cancel(batch.id)
        ended = await made.ended(batch)
        assert len(await made.results(ended.output_file_id)) == 3


async def test_lines_of_a_key_that_ended_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = KnownLater(caller_with(), has_ended=True)
    async with batching(tmp_path, monkeypatch, auth=auth) as made:
        ended = await made.ended(await made.make([line("a"), line("b")]))
        refused = await made.results(ended.error_file_id)
        assert [each["response"]["status_code"] for each in refused.values()] == [401, 401]
        assert made.gateway.log.records == []


@pytest.mark.parametrize(
    ("status", "headers", "tries", "wait"),
    [
        (200, {}, 0, None),
        (400, {"retry-after": "3"}, 0, None),
        (429, {"retry-after": "3"}, 100, 3.0),
        (429, {"retry-after": "86400"}, 0, 60.0),
        (429, {}, 0, None),
        (503, {"retry-after": "1"}, 0, 1.0),
        (502, {}, 3, 8.0),
        (504, {}, 5, None),
    ],
)
def test_what_is_asked_again(status: int, headers: dict[str, str], tries: int, wait: float | None) -> None:
    assert wait_s(Answer(status, headers), tries) == wait


async def test_lines_give_way_to_other_requests_but_one() -> None:
    others = 0
    taken = 0

    def requests() -> int:
        return others + taken

    places = Places(4, requests)
    others = 2
    for _ in range(2):
        await places.take()
        taken += 1
    third = asyncio.create_task(places.take())
    await asyncio.sleep(0)
    assert not third.done()
    others = 1
    await asyncio.wait_for(third, DEADLINE_S)
    taken += 1
    others = 100
    for _ in range(3):
        places.give()
        taken -= 1
    await asyncio.wait_for(places.take(), DEADLINE_S)
    fourth = asyncio.create_task(places.take())
    await asyncio.sleep(0)
    assert not fourth.done()
    places.give()
    await asyncio.wait_for(fourth, DEADLINE_S)
