"""The embedded engine as a child process: what is measured is what is served, weights and wire alike.

`training` may not import `gateway`, so converter and engine are run as the commands they are.
"""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from base.errors import EngineError

BASE = "base"  # the name under which the model without an adapter is scored
START_TIMEOUT_S = 120.0
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
    """Converts the adapters into `work_dir`, starts the engine with all of them and stops it at the end.

    Raises:
        EngineError: it ended or did not answer in time; its own message is on stderr.
    """
    ready_file = work_dir / "ready.json"
    ready_file.unlink(missing_ok=True)
    convert = ["--base", str(base_gguf), "--out-dir", str(work_dir), *map(str, adapter_dirs)]
    subprocess.run([sys.executable, "-m", "fleet.lora_gguf", *convert], check=True)
    serve = ["--model", str(base_gguf), "--ready-file", str(ready_file), "--threads", str(threads)]
    serve += ["--slots", str(SLOTS)]
    for folder in adapter_dirs:
        serve += ["--adapter", f"{folder.name}={work_dir / folder.name}.gguf"]
    process = subprocess.Popen([sys.executable, "-m", "fleet.llamacpp", *serve])
    try:
        yield _wait_ready(process, ready_file)
    finally:
        process.terminate()
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], ready_file: Path) -> Engine:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready_file.exists():
        if process.poll() is not None:
            raise EngineError(f"the engine ended at its start with status {process.returncode}")
        if time.monotonic() > deadline:
            raise EngineError(f"the engine was not ready after {START_TIMEOUT_S:g} s")
        time.sleep(0.05)
    ready = json.loads(ready_file.read_text())
    return Engine(f"http://127.0.0.1:{ready['port']}", ready["adapters"])
