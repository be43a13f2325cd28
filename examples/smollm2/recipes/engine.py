"""The embedded engine that serves, as what is measured: weights and wire alike."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coe.fleet.adapter_files import converted_adapters
from coe.fleet.llamacpp import EngineOptions, start_server

BASE = "base"  # the name under which the model without an adapter is scored
SLOTS = 4


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine: its address and the id of each expert; the base has none."""

    url: str
    id_of: dict[str, int]

    def reply(self, expert: str, prompt: str, max_tokens: int) -> str:
        """The greedy answer of `expert` to one user message."""
        adapters = [] if expert == BASE else [{"id": self.id_of[expert], "scale": 1.0}]
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "lora": adapters,
            "cache_prompt": bool(adapters),  # without an adapter the engine would reuse an expert's cache
        }
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            return str(json.load(response)["choices"][0]["message"]["content"])

    def replies(self, expert: str, prompts: list[str], max_tokens: int) -> list[str]:
        """`reply` for each prompt, as many at once as the engine has slots."""
        with ThreadPoolExecutor(SLOTS) as pool:
            return list(pool.map(lambda prompt: self.reply(expert, prompt, max_tokens), prompts))


@contextmanager
def running_engine(base_gguf: Path, adapter_dirs: list[Path], work_dir: Path, threads: int) -> Iterator[Engine]:
    """Converts the adapters into `work_dir` and runs the engine with all of them in this process.

    Raises:
        EngineError: it cannot load them; its own message is on stderr.
    """
    files = converted_adapters({folder.name: folder for folder in adapter_dirs}, base_gguf, work_dir)
    options = EngineOptions(str(base_gguf), tuple(map(str, files.values())), slots=SLOTS, threads=threads)
    server = start_server(options)  # lives as long as its name
    yield Engine(server.listening_address, {name: number for number, name in enumerate(files)})
    del server
