"""A category that answers from a store: sources in the prompt, in headers and in whole answers; streams untouched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.decision_log.decision_record import DecisionKind
from coe.gateway.retrieval.attachment import Sources
from coe.router.retrieval_config import AttachedStore
from tests.gateway.retrieval.serving import Serving, retrieval_config, serving
from tests.waiting import DEADLINE_S

TEXTS = {"red.txt": "Red paint dries in two hours.", "blue.txt": "Blue paint is sold out."}
ASK = "red: how long does paint take to dry?"


async def chat(running: Serving, content: object, **fields: object) -> tuple[bytes, Mapping[str, str], int]:
    body = {"model": "auto", "messages": [{"role": "user", "content": content}], **fields}
    async with running.http.post(f"{running.url}/chat/completions", json=body) as response:
        return await response.read(), response.headers, response.status


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttachedStore, "timeout_s", DEADLINE_S)


async def store_in(folder: Path) -> str:
    async with serving(folder) as running:
        return await running.store_of(TEXTS)


def attached(store_id: str, **options: object) -> Any:
    return retrieval_config(attach={"red": {"store": store_id, "results": 2, **options}})


async def test_a_whole_answer_names_the_sources_that_its_expert_was_given(tmp_path: Path) -> None:
    store_id = await store_in(tmp_path)
    async with serving(tmp_path, config=attached(store_id)) as running:
        raw, headers, status = await chat(running, ASK)
        assert status == 200
        answer = orjson.loads(raw)
        prompt = answer["choices"][0]["message"]["content"]  # echo answers with what it was asked
        assert "[1] red.txt\nRed paint dries in two hours." in prompt
        assert prompt.endswith(f"Question: {ASK}")
        first = answer["coe"]["sources"][0]
        assert first["filename"] == "red.txt"
        assert headers["x-coe-sources"].split(", ")[0] == first["document_id"]
        assert headers["x-coe-store"] == store_id
        assert headers["x-coe-retrieval-expert"] == "base"
        search, answered = running.log.records
        assert search.kind is DecisionKind.SEARCH
        assert search.decision_id == headers["x-coe-retrieval-decision-id"] == answer["coe"]["retrieval_decision_id"]
        assert answered.kind is DecisionKind.CHAT
        assert answered.text == ASK
        assert search.request_id == answered.request_id


async def test_a_stream_passes_unchanged_and_has_its_sources_in_headers(tmp_path: Path) -> None:
    store_id = await store_in(tmp_path)
    async with serving(tmp_path, config=attached(store_id)) as running:
        raw, headers, _ = await chat(running, ASK, stream=True)
        assert raw.endswith(b"data: [DONE]\n\n")
        assert b'"coe"' not in raw
        assert headers["x-coe-sources"].count("#") == 2


async def test_parts_keep_their_images_and_other_categories_their_prompts(tmp_path: Path) -> None:
    store_id = await store_in(tmp_path)
    async with serving(tmp_path, config=attached(store_id)) as running:
        raw, headers, _ = await chat(running, [{"type": "text", "text": ASK}])
        assert "x-coe-sources" in headers
        raw, headers, _ = await chat(running, "green: how long does paint take to dry?")
        assert "x-coe-sources" not in headers
        assert "coe" not in orjson.loads(raw)
        _, headers, _ = await chat(running, ASK, model="ruby")
        assert "x-coe-sources" not in headers


async def test_chat_goes_on_without_a_store_that_is_gone(tmp_path: Path) -> None:
    async with serving(tmp_path, config=attached("vs_gone")) as running:
        raw, headers, status = await chat(running, ASK)
        assert status == 200
        assert headers["x-coe-sources"] == "unavailable"
        assert orjson.loads(raw)["choices"][0]["message"]["content"].endswith(ASK)


@pytest.mark.parametrize(
    ("options", "chars", "count"), [({"results": 1}, 100, 1), ({}, 1, 0), ({"min_score": 0.99}, 4000, 0)]
)
async def test_limits_of_an_attachment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], chars: int, count: int
) -> None:
    monkeypatch.setattr(AttachedStore, "max_chars", chars)
    store_id = await store_in(tmp_path)
    async with serving(tmp_path, config=attached(store_id, **options)) as running:
        raw, headers, _ = await chat(running, ASK)
        assert len(orjson.loads(raw)["coe"]["sources"]) == count
        assert headers["x-coe-sources"].count("#") == count


async def test_sources_that_the_experts_context_cannot_hold_are_left_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of({"long.txt": "red paint dries " * 60})
    async with serving(tmp_path, config=attached(store_id)) as running:
        _, headers, status = await chat(running, ASK, max_tokens=4096 - 20)
        assert status == 200
        assert headers["x-coe-sources"] == "none"


@given(
    st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5), max_size=4).filter(
        lambda d: "coe" not in d
    )
)
def test_the_body_of_a_whole_answer_gains_one_field_and_loses_nothing(answer: dict[str, object]) -> None:
    body = orjson.dumps(answer) + b"\n"
    changed = orjson.loads(Sources("vs_1").in_body(body))
    assert changed.pop("coe") == {"store": "vs_1", "retrieval_decision_id": None, "sources": []}
    assert changed == answer
    assert Sources("vs_1").in_body(b"[1]") == b"[1]"
