"""Sessions of coding agents: the engine that they are recorded and replayed in front of, and what is kept of them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coe.router.capabilities import Capabilities
from tests.clients.engine import HelpfulEngine, helpful_engine
from tests.gateway.running import Running, provider, running
from tests.gateway.small_router import EXPERTS, small_router

Json = dict[str, Any]
FOLDER = Path(__file__).parent / "recordings"
ANSWER = "There is one file, a.py."
CALLS = {"exec_command": {"cmd": "ls"}, "Bash": {"command": "ls", "description": "Lists files"}}
"""The arguments of each agent's tool for commands."""

SECRETS = ("authorization", "x-api-key")
OF_THE_CONNECTION = ("accept-encoding", "connection", "content-length", "host")
MAX_WORDS = 9
LONG = re.compile(r"(<[\w -]+>)?.*?(</[\w -]+>\s*)?", re.DOTALL)
PLACE = re.compile(r"\.\.\.(\d+) characters\.\.\.")


def agent_message(body: Mapping[str, Any]) -> Json:
    """Calls the agent's tool once, then twice at a time, then answers. Thinks before each."""
    rounds = 0
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            break
        rounds += message["role"] == "assistant"
    names = [tool["function"]["name"] for tool in body.get("tools") or ()]
    name = next((name for name in CALLS if name in names), None)
    if name is None or rounds == 2:
        return {"reasoning_content": "All was seen.", "content": ANSWER}
    function = {"name": name, "arguments": json.dumps(CALLS[name])}
    calls = [
        {"id": f"call_{len(body['messages'])}_{number}", "type": "function", "function": function}
        for number in range(rounds + 1)
    ]
    return {"reasoning_content": "The files first.", "content": "Again." if rounds else None, "tool_calls": calls}


@asynccontextmanager
async def agents_gateway() -> AsyncIterator[tuple[Running, HelpfulEngine]]:
    """A gateway whose experts all reach one engine for agents."""
    router = small_router(capabilities={name: Capabilities() for name in EXPERTS})
    async with helpful_engine(agent_message) as engine:
        backends = {name: provider(engine.url, name) for name in EXPERTS}
        async with running(backends, router=router) as gateway:
            yield gateway, engine


@dataclass(frozen=True)
class Exchange:
    """A request as an agent sent it, the long texts replaced, and the events that it got."""

    path: str
    headers: dict[str, str]
    body: Json
    status: int
    events: list[str]


def event_types(answer: str) -> list[str]:
    """The types of a stream's events, in their order."""
    return [line.removeprefix("event: ") for line in answer.splitlines() if line.startswith("event: ")]


def kept(exchange: Exchange) -> Exchange:
    """The exchange without keys, and with each text of more than MAX_WORDS words replaced by its length."""
    headers = {name: text for name, text in exchange.headers.items() if name not in (*SECRETS, *OF_THE_CONNECTION)}
    return Exchange(exchange.path, headers, without_texts(exchange.body), exchange.status, exchange.events)


def without_texts(value: Any, name: str = "") -> Any:
    """The value with lengths in place of long texts and of descriptions. Tags around a text stay."""
    if isinstance(value, dict):
        return {each: without_texts(inner, each) for each, inner in value.items()}
    if isinstance(value, list):
        return [without_texts(inner, name) for inner in value]
    if not isinstance(value, str) or len(value.split()) <= (2 if name == "description" else MAX_WORDS):
        return value
    found = LONG.fullmatch(value)
    before, after = (part or "" for part in (found.groups() if found else ("", "")))
    return f"{before}...{len(value) - len(before) - len(after)} characters...{after}"


def with_texts(value: Any) -> Any:
    """The value with texts of the lengths that were kept."""
    if isinstance(value, dict):
        return {name: with_texts(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_texts(inner) for inner in value]
    return (
        PLACE.sub(lambda found: ("word " * int(found[1]))[: int(found[1])], value) if isinstance(value, str) else value
    )


def save(name: str, version: str, exchanges: list[Exchange]) -> None:
    """Writes a recording. A field that the request before had too is only named, since tools are most of a request."""
    written: list[Json] = []
    before: Json = {}
    for exchange in map(kept, exchanges):
        same = [field for field, value in exchange.body.items() if before.get(field) == value]
        changed = {field: value for field, value in exchange.body.items() if field not in same}
        written.append({**vars(exchange), "body": changed, "same": same})
        before = exchange.body
    lines = [json.dumps(line) for line in ({"version": version}, *written)]
    (FOLDER / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load(name: str) -> list[Exchange]:
    """Reads a recording."""
    found: list[Exchange] = []
    before: Json = {}
    for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[1:]:
        written = json.loads(line)
        before = {field: before[field] for field in written.pop("same")} | written["body"]
        found.append(Exchange(**{**written, "body": with_texts(before)}))
    return found
