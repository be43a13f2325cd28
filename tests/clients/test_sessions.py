"""Sessions of Codex and Claude Code as they send them, replayed against a gateway process: a tool is called, its result
goes back with the whole conversation, and the answer comes. The requests are written by hand after their public shapes.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.clients.engine import AFTER_TOOL, HelpfulEngine, helpful_engine
from tests.gateway.served import end_gateway, start_gateway

pytestmark = pytest.mark.slow  # a process each

Json = dict[str, Any]
SHELL = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
SESSION = "0199a213-81c0-7800-8aa1-bbab2a035a53"


@asynccontextmanager
async def serving(engine: HelpfulEngine, folder: Path) -> AsyncIterator[str]:
    """The address of `coe serve` in front of the engine; whatever model is asked for is its only expert."""
    coder = {"engine": "openai", "model": "coder", "url": engine.url, "supports_tools": True, "context_tokens": 200_000}
    config = {
        "categories": {"code": "code", "general": "the rest"},
        "experts": {"coder": coder},
        "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
        "aliases": {"*": "coder"},
    }
    (folder / "experts.yaml").write_text(yaml.safe_dump(config))
    process, url = await asyncio.to_thread(start_gateway, folder / "experts.yaml", folder / "data")
    try:
        yield url.removesuffix("/v1")
    finally:
        await asyncio.to_thread(end_gateway, process, signal.SIGINT)


async def events(url: str, body: Json, headers: Mapping[str, str]) -> tuple[list[Json], Mapping[str, str]]:
    """The events of a stream, each under the name of its type."""
    async with aiohttp.ClientSession() as client, client.post(url, json=body, headers=headers) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        assert answer.headers["content-type"].startswith("text/event-stream")
    frames = [frame.split("\n") for frame in text.strip().split("\n\n")]
    found = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name.removeprefix("event: ") for name, _ in frames] == [event["type"] for event in found]
    return found, answer.headers


def codex(items: list[Json]) -> Json:
    """A request of Codex with web search off, for a model that it does not know."""
    plan = {"type": "object", "properties": {"plan": {"type": "array", "items": {"type": "object"}}}}
    functions = {"exec_command": SHELL, "update_plan": plan, "apply_patch": SHELL}
    return {
        "model": "gpt-5-codex",
        "instructions": "You are a coding agent running in a terminal.",
        "input": items,
        "tools": [
            {"type": "function", "name": name, "description": name, "strict": False, "parameters": parameters}
            for name, parameters in functions.items()
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": SESSION,
        "text": {"verbosity": "medium"},
        "client_metadata": {"x-codex-installation-id": "3c1e"},
    }


def said(role: str, text: str) -> Json:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


async def test_a_session_of_codex(tmp_path: Path) -> None:
    headers = {
        "accept": "text/event-stream",
        "originator": "codex_cli_rs",
        "session_id": SESSION,
        "authorization": "Bearer x",
    }
    items = [
        said("developer", "<permissions instructions>The sandbox is read-only.</permissions instructions>"),
        said("user", "<environment_context>\n  <cwd>/repo</cwd>\n</environment_context>"),
        said("user", "List the files."),
    ]
    async with helpful_engine() as engine, serving(engine, tmp_path) as root:
        first, found = await events(f"{root}/v1/responses", codex(items), headers)
        done = [event["item"] for event in first if event["type"] == "response.output_item.done"]
        output = {"type": "function_call_output", "call_id": done[0]["call_id"], "output": "Exit code: 0\na.py"}
        second, _ = await events(f"{root}/v1/responses", codex([*items, *done, output]), headers)
    assert (found["x-coe-alias"], found["x-coe-expert"]) == ("gpt-5-codex", "coder")
    assert [(item["type"], item["name"]) for item in done] == [("function_call", "exec_command")]
    assert json.loads(done[0]["arguments"]) == {"command": "Bern"}
    assert first[-1]["type"] == second[-1]["type"] == "response.completed"
    assert first[-1]["response"]["usage"]["total_tokens"] == 28
    texts = [event["delta"] for event in second if event["type"] == "response.output_text.delta"]
    assert len(texts) > 1
    assert "".join(texts) == AFTER_TOOL
    asked = engine.asked[1]["messages"]
    assert [message["role"] for message in asked] == ["system", "user", "user", "assistant", "tool"]
    assert asked[0]["content"].endswith("read-only.</permissions instructions>")
    assert asked[3]["tool_calls"][0]["id"] == asked[4]["tool_call_id"]


def claude_code(messages: list[Json]) -> Json:
    """A request of Claude Code."""
    cached = {"cache_control": {"type": "ephemeral"}}
    return {
        "model": "claude-opus-4-6",
        "messages": messages,
        "system": [
            {"type": "text", "text": "You are Claude Code.", **cached},
            {"type": "text", "text": "Be concise.", **cached},
        ],
        "tools": [
            {"name": name, "description": name, "input_schema": SHELL, "eager_input_streaming": True}
            for name in ("Bash", "Read", "Edit")
        ],
        "metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "", "session_id": SESSION})},
        "max_tokens": 32_000,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "stream": True,
    }


async def test_a_session_of_claude_code(tmp_path: Path) -> None:
    headers = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,context-management-2025-06-27,effort-2025-11-24",
        "authorization": "Bearer x",
        "user-agent": "claude-cli/2.1.69 (external, cli)",
        "x-app": "cli",
    }
    reminder = {"type": "text", "text": "<system-reminder>\nToday is Friday.\n</system-reminder>"}
    ask = {"role": "user", "content": [reminder, {"type": "text", "text": "List the files."}]}
    async with helpful_engine() as engine, serving(engine, tmp_path) as root:
        url = f"{root}/v1/messages?beta=true"
        first, found = await events(url, claude_code([ask]), headers)
        start = next(event["content_block"] for event in first if event["type"] == "content_block_start")
        pieces = [event["delta"]["partial_json"] for event in first if event["type"] == "content_block_delta"]
        call = {**start, "input": json.loads("".join(pieces))}
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": "a.py", "is_error": False}
        turns = [ask, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        second, _ = await events(url, claude_code(turns), headers)
        counted = {name: claude_code(turns)[name] for name in ("model", "messages", "system", "tools")}
        counting = aiohttp.ClientSession()
        async with counting, counting.post(f"{root}/v1/messages/count_tokens?beta=true", json=counted) as answer:
            assert (answer.status, answer.headers["x-coe-token-count"]) == (200, "estimate")
    assert (found["x-coe-alias"], found["x-coe-expert"]) == ("claude-opus-4-6", "coder")
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "Bash", {"command": "Bern"})
    assert first[-2]["delta"]["stop_reason"] == "tool_use"
    assert second[-2]["delta"]["stop_reason"] == "end_turn"
    assert second[-2]["usage"] == {
        "input_tokens": 20,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 8,
    }
    texts = [event["delta"]["text"] for event in second if event["type"] == "content_block_delta"]
    assert len(texts) > 1
    assert "".join(texts) == AFTER_TOOL
    asked = engine.asked[1]
    assert asked["reasoning_effort"] == "medium"
    assert [message["role"] for message in asked["messages"]] == ["system", "user", "assistant", "tool"]
    assert asked["messages"][0]["content"] == "You are Claude Code.\nBe concise."
