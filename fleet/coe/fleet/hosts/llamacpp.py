"""The embedded engine: llama.cpp's OpenAI-compatible server with one base model and many LoRA experts.

    python -m coe.fleet.hosts.llamacpp '{"model": "FILE.gguf", "adapters": ["FILE.gguf"], "port": 8100}'

What a request body must hold, found by running adapters and the base against each other:

- Expert k: `"lora": [{"id": k, "scale": 1.0}]`, k its adapter's place in the list, from 0. Those that the field
  does not name have scale 0.
- The base: all adapters with scale 0. An empty list or no such field computes the same, but see below. An unknown
  id is ignored without an error and gives the base; a `lora` that is not a list gives 400. `model` is not checked
  and not needed. So the caller maps names to ids, and overwrites `lora` and `cache_prompt` of a client's body.
- `"cache_prompt": true` is safe with a list that is not empty. When a slot's adapter changes the server then drops
  the slot's keys and values, but not when the next request lists no adapter: the base then continued from what an
  expert computed (10 of 12 greedy answers differed). Hence `cache_prompt` is off here unless a request asks for it.
- The cache in host memory (`cache_ram_mib`) is off as a precaution: it was not seen to be wrong (36 requests).

Slots with different adapters do not interfere. Greedy answers are the same at once and one by one, and with a
cached prompt and without, but for rounding: 1 of 18 differed when requests of one adapter shared a batch, 2 of 48
when the base continued from the prompt before.

A prompt longer than a slot's context gets 400 with `error.type` "exceed_context_size_error",
`n_prompt_tokens` and `n_ctx`; an answer that reaches it ends with finish_reason "length". Without a model
or adapter file, or with one that llama.cpp cannot load, the process ends with status 1 before it listens,
the reason on stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coe.base.errors import EngineError

LOOPBACK = "127.0.0.1"
PARENT_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`model` and `adapters` are GGUF files; a request names an adapter by its place, from 0. `context_tokens` is what
    one request may use, prompt and answer together; llama.cpp rounds it up to 256s. Port 0 takes any free one."""

    model: str
    adapters: tuple[str, ...] = ()
    port: int = 0
    slots: int = 4
    context_tokens: int = 2048
    threads: int = 2


def start_server(options: EngineOptions) -> Any:
    """An `xllamacpp.Server` that answers; it stops when the object is deleted.

    Raises:
        EngineError: a file is missing or is not what llama.cpp can load.
    """
    for path in (options.model, *options.adapters):
        if not Path(path).is_file():
            raise EngineError(f"no such file: {path}")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.hostnames = [LOOPBACK]
    params.port = options.port
    params.n_parallel = options.slots
    params.n_ctx = options.context_tokens * options.slots  # llama.cpp divides it among the slots
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.fit_params = False  # never shrink the context to what memory seems free
    params.cache_prompt = False  # wrong without a list of adapters, see the module's text
    params.cache_ram_mib = 0
    params.endpoint_metrics = True
    params.verbosity = 1
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in options.adapters]
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise EngineError(
            f"llama.cpp refused {options.model} with adapters {list(options.adapters)}: {error}"
        ) from error


def serve(options: EngineOptions) -> None:
    """Runs the engine until SIGTERM, SIGINT or the parent's death."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    parent_pid = os.getppid()
    server = start_server(options)
    while not stopped.wait(PARENT_POLL_S) and os.getppid() == parent_pid:
        pass
    del server


def main(words: str) -> int:
    """Exit status 0 after a stop that was asked for, 1 with one line on stderr when it cannot start."""
    try:
        serve(EngineOptions(**json.loads(words)))
    except EngineError as error:
        print(f"llamacpp: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
