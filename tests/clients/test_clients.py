"""The clients of docs/clients.md, unmodified, each in a process of its own, against a gateway on a real socket."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from coe.router.capabilities import Capabilities
from tests.clients.engine import helpful_engine
from tests.gateway.running import echoes, provider, running
from tests.gateway.small_router import EXPERTS, small_router

SCRIPTS = Path(__file__).parent / "scripts"
CLIENTS = Path(__file__).parents[2] / ".venv-clients" / "bin" / "python"
OURS = Path(sys.executable)  # has OpenAI's, Anthropic's and litellm in other versions
KEY = "canary-7f3a9c51e2b84d06"
APART = ("openai", "anthropic", "langchain", "llama_index", "pydantic_ai", "instructor", "agents")
RUNS = [*((name, CLIENTS) for name in APART), *((name, OURS) for name in ("openai", "anthropic", "litellm"))]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "python"), RUNS, ids=[f"{name}-{python.parts[-3]}" for name, python in RUNS])
async def test_the_client_works(name: str, python: Path) -> None:
    assert python.exists(), f"{python} is missing: `make environments` installs it"
    router = small_router(capabilities={expert: Capabilities() for expert in EXPERTS})
    entries = {expert: {"supports": ["tools", "json"], "context_tokens": 200_000} for expert in EXPERTS}
    async with (
        helpful_engine() as engine,
        running(
            echoes(**{expert: provider(engine.url, expert) for expert in EXPERTS}),
            router=router,
            entries=entries,
            keys=[KEY],
            sections={"aliases": {"gpt-*": "auto"}},  # what LlamaIndex asks for by default
        ) as gateway,
    ):
        environment = {each: value for each, value in os.environ.items() if each != "PYTHONPATH"}
        process = await asyncio.create_subprocess_exec(
            str(python),
            str(SCRIPTS / f"use_{name}.py"),
            gateway.root,
            KEY,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()[-3000:]
        assert engine.asked
        assert {record.served_expert for record in gateway.log.records if record.status == 200} == {"ruby"}
