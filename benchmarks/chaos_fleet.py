"""Real processes of `coe` to kill: a folder, an experts.yaml whose only expert echoes, and children by name."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import yaml

from coe.fleet.hosts.engine_plans import free_port

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.05
EXPERT = "parrot"


def write_config(folder: Path, **log: object) -> Path:
    """An experts.yaml with one echo expert and these options of the log."""
    values = {
        "categories": {"speech": "something to repeat", "general": "the rest"},
        "experts": {EXPERT: {"engine": "echo", "model": "echo"}},
        "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
        "log": log,
    }
    path = folder / "experts.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


class Child:
    """One `coe` command as a process of its own, which can be started again.

    Args:
        arguments: of `coe`.
        environment: in addition to ours.
        log: file that its output is appended to.
    """

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = [sys.executable, "-m", "coe", *arguments]
        self.environment = {**os.environ, **environment}
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Ends it as a crash would; harmless when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """Asks it to end in order, and kills it when it does not. Returns its exit status; None when it never ran."""
        if self._process is None:
            return None
        if self.is_running:
            self.send(number)
        try:
            await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        return self._process.returncode


class GatewayProcess(Child):
    """`coe serve` on a port that stays the same over all its lives."""

    def __init__(self, config: Path, data_dir: Path, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        places = {"COE_CONFIG": str(config), "COE_DATA_DIR": str(data_dir), "COE_PORT": str(self.port)}
        super().__init__(
            ["serve"],
            {**environment, **places, "COE_API_KEYS": "", "COE_HOST": "127.0.0.1"},
            log,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def wait_until_it_serves(self, client: aiohttp.ClientSession) -> None:
        """Raises TimeoutError with the end of its output."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with suppress(aiohttp.ClientError):
                async with client.get(f"{self.url}/healthz") as answer:
                    if answer.status == 200:
                        return
            if time.monotonic() > deadline or not self.is_running:
                raise TimeoutError(f"the gateway does not serve: {self.log.read_text()[-2000:]}")
            await asyncio.sleep(POLL_S)

    async def ask(self, client: aiohttp.ClientSession, text: str, *, is_stream: bool, request_id: str) -> str | None:
        """The decision id of an answer whose end arrived; None when it did not, whatever the reason."""
        body = {"model": EXPERT, "stream": is_stream, "messages": [{"role": "user", "content": text}]}
        try:
            async with client.post(
                f"{self.url}/v1/chat/completions", json=body, headers={"x-request-id": request_id}
            ) as answer:
                received = await answer.read()
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return None
        if answer.status != 200 or (is_stream and b"data: [DONE]" not in received):
            return None
        return answer.headers["x-coe-decision-id"]


@asynccontextmanager
async def serving(gateway: GatewayProcess) -> AsyncIterator[aiohttp.ClientSession]:
    """Starts a gateway; kills what is left of it in the end."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=START_TIMEOUT_S)) as client:
        gateway.start()
        try:
            await gateway.wait_until_it_serves(client)
            yield client
        finally:
            gateway.kill()
