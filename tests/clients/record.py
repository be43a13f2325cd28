"""Records a session of Codex and one of Claude Code, both unmodified, for test_sessions.py.

Run it as `python -m tests.clients.record` with `codex` and `claude` on the PATH (npm install @openai/codex
@anthropic-ai/claude-code). It starts a gateway in front of a scripted engine and lets each agent ask it twice, with a
home folder of its own and no account. Nothing leaves this machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from aiohttp import ClientSession, web

from tests.clients.agents import ANSWER, Exchange, agents_gateway, event_types, save
from tests.gateway.running import Running
from tests.served_app import app_of, serving

ASKS = ("List the files.", "And now count them, in red.")
CONFIG = """
model = "auto"
model_provider = "coe"
web_search = "disabled"
[model_providers.coe]
name = "coe"
base_url = "{root}/v1"
env_key = "COE_KEY"
wire_api = "responses"
"""
CODEX = "codex exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox"
CLAUDE = "claude --model auto --allowedTools Bash -p"
COMMANDS = {
    "codex": ("codex --version", f"{CODEX} '{ASKS[0]}'", f"{CODEX} resume --last '{ASKS[1]}'"),
    "claude_code": ("claude --version", f"{CLAUDE} '{ASKS[0]}'", f"{CLAUDE} '{ASKS[1]}' --continue"),
}
LIMIT_S = 120


class Recorder:
    """Passes requests on to the gateway as they are, and keeps them beside their answers."""

    def __init__(self, gateway: Running) -> None:
        self._gateway = gateway
        self.exchanges: list[Exchange] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        raw, headers = await request.read(), {name.lower(): text for name, text in request.headers.items()}
        passed = {name: text for name, text in headers.items() if name not in ("host", "content-length")}
        url = self._gateway.root + request.path_qs
        async with ClientSession() as client, client.request(request.method, url, data=raw, headers=passed) as answer:
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            await response.prepare(request)
            received = b""
            async for chunk in answer.content.iter_any():
                received += chunk
                await response.write(chunk)
        if raw:
            events = event_types(received.decode())
            self.exchanges.append(Exchange(request.path_qs, headers, json.loads(raw), answer.status, events))
        return response


async def record(name: str) -> None:
    """Runs an agent's session and writes what it sent."""
    async with agents_gateway() as (gateway, _):
        recorder = Recorder(gateway)
        async with serving(app_of({"* /{path:.*}": recorder})) as root:
            with tempfile.TemporaryDirectory() as home:
                said = [await run(command, Path(home), root) for command in COMMANDS[name]]
    if not all(ANSWER in text for text in said[1:]):
        raise SystemExit(f"{name} did not come to its end:\n{said}")
    save(name, said[0].strip(), recorder.exchanges)
    print(f"{said[0].strip()}: {len(recorder.exchanges)} requests")


async def run(command: str, home: Path, root: str) -> str:
    """The output of an agent's command."""
    (home / ".codex").mkdir(exist_ok=True)
    (home / ".codex" / "config.toml").write_text(CONFIG.format(root=root))
    (home / "repo").mkdir(exist_ok=True)
    (home / "repo" / "a.py").write_text("print(1)\n")
    keys = {"COE_KEY": "made-up", "ANTHROPIC_API_KEY": "made-up", "ANTHROPIC_BASE_URL": root}
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "dumb", **keys}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_shell(
        command, cwd=home / "repo", env=env, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    return output.decode() + (errors.decode() if process.returncode else "")


if __name__ == "__main__":
    for each in COMMANDS:
        asyncio.run(record(each))
