"""CPU time that following requests adds to a chat, for each way of following them, in turns within one process.

    python -m benchmarks.telemetry_cost [ROUNDS]

The gateway, its client and the SDK's thread are one process, whose CPU time counts; engine and collector are another's.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import uvloop

from coe.fleet.calls.pool import ExpertPool
from coe.fleet.processes.program_log import JsonFormatter
from coe.fleet.providers import vllm
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import live_router
from coe.gateway.settings import Settings
from coe.gateway.telemetry.request_spans import Exporting
from coe.gateway.telemetry.telemetry import Telemetry
from coe.router.config.composition import parse_config
from tests.gateway.running import MemoryStore
from tests.memory_log import MemoryLog

CHATS = 50
ANSWER = (
    b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"words"},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":1,"total_tokens":5}}'
)
CONFIG = {
    "categories": {"one": "one", "general": "the rest"},
    "experts": {"m": {"engine": "openai", "model": "m", "url": "http://127.0.0.1:1/v1"}},
    "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
}


class Answering(BaseHTTPRequestHandler):
    """Answers whatever comes: chats, and what a collector gets."""

    protocol_version, wbufsize = "HTTP/1.1", 1 << 16

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def serve(ready: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    ready.send(server.server_address[1])
    server.serve_forever()


async def measure(port: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a chat by way of following it, one figure a round."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
    every = Exporting("benchmark", has_lines=False)
    ways = {
        "off": None,
        "lines": Telemetry(has_lines=True),
        "spans": every,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    config = parse_config(CONFIG)
    settings = Settings(data_dir=Path(tempfile.mkdtemp()))
    gateways = {}
    for name, telemetry in ways.items():
        backends = {"m": vllm.build(vllm.Options(url=f"http://127.0.0.1:{port}/v1", served_model="m"))}
        live = live_router(settings, config)
        parts = Parts(config, ExpertPool(backends), live, MemoryLog(), MemoryStore(), telemetry=telemetry)
        gateways[name] = Gateway(parts)
        await gateways[name].start()
    body = {"model": "m", "messages": [{"role": "user", "content": "say it"}]}
    async with aiohttp.ClientSession() as client:
        for _ in range(rounds + 1):
            for name, gateway in gateways.items():
                begin_s = time.process_time()
                for _ in range(CHATS):
                    async with client.post(f"{gateway.url}/chat/completions", json=body) as answer:
                        assert answer.status == 200
                        await answer.read()
                found[name].append((time.process_time() - begin_s) / CHATS)
    for gateway in gateways.values():
        await gateway.stop()
    return {name: seconds[1:] for name, seconds in found.items()}  # the first round warms up


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 80
    handler = logging.FileHandler(os.devnull)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    other.start()
    found = uvloop.run(measure(ours.recv(), rounds))
    for name, seconds in found.items():
        added = [each - off for each, off in zip(seconds, found["off"], strict=True)]
        low, _, high = statistics.quantiles(added, n=4)
        print(
            f"{name:20} {statistics.median(seconds) * 1e6:6.0f} us a chat, {statistics.median(added) * 1e6:+5.0f} us",
            end="",
        )
        print(f" (middle half {low * 1e6:+.0f} to {high * 1e6:+.0f})")
    other.terminate()


if __name__ == "__main__":
    main()
