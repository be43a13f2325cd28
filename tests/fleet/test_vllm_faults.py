"""Causes of a start that failed, in the words of vLLM's own source, and of vLLM itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from coe.fleet.hosts.engine_plans import free_port
from coe.fleet.vllm.faults import cause_in
from tests.vllm_build import ENVIRONMENT, vllm_interpreter, write_base

LAST = "\nRuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
LOGS = {
    "Free memory on device cuda:0 (8.2/79.6 GiB) on startup is less than desired GPU memory utilization (0.9, 71.6 "
    "GiB). Decrease GPU memory utilization or": "8.2 of 79.6 GiB free and it wants 71.6",
    "To serve at least one request with the model's max seq len (32768), (4.0 GiB KV cache is needed, which is larger "
    "than the available KV cache memory (2.5 GiB). Based on the available memory, the estimated maximum model length "
    "is 20480. Try": "lower `context_tokens` (vLLM estimates at most 20480)",
    "No available memory for the cache blocks. Try increasing": "its weights leave no memory",
    "User-specified max_model_len (9000) is greater than the derived max_model_len (max_position_embeddings=8192.0 or "
    "model_max_length=None": "the model reads 8192.0 tokens and 9000 are asked for",
    "ImportError: libcudart.so.13: cannot open shared object file": "driver 580 or newer",
    "The NVIDIA driver on your system is too old (found version 12040)": "driver 580 or newer",
    "RuntimeError: CUDA error: no kernel image is available for execution on the device": "has no kernel for the GPU",
    "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo": "accept its licence",
    "OSError: maker/none is not a local folder and is not a valid model identifier": "check `model`",
    "OSError: [Errno 28] No space left on device": "a disk is full",
    "OSError: [Errno 98] Address already in use": "`vllm.first_port`",
    "api_server.py: error: unrecognized arguments: --no-such-flag": "does not know --no-such-flag",
    "/usr/bin/python3: Error while finding module specification (No module named 'vllm')": "`vllm.python`",
    "Model architectures ['NoneLM'] are not supported for now. Supported": "does not serve ['NoneLM']",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB": "ran out of memory while it started",
}


@pytest.mark.parametrize("line", LOGS)
def test_a_cause_is_told_with_its_repair(line: str) -> None:
    told = cause_in(f"INFO starts\n{line}\n" + "  File x, line 1\n" * 118 + LAST)
    assert told is not None
    assert LOGS[line] in told


def test_what_is_not_known_and_braces_are_left_alone() -> None:
    assert cause_in(LAST) is None
    assert cause_in("unrecognized arguments: --x {a}") is not None


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(vllm_interpreter(), tmp_path_factory.mktemp("base"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--no-such-flag"], "does not know --no-such-flag"),
        (["nobody/none"], "check `model`"),
        (["--max-model-len", "100000"], "the model reads 8192"),
    ],
)
def test_vllm_itself_says_the_cause(words: list[str], cause: str, base: Path) -> None:
    model = [] if words == ["nobody/none"] else [str(base)]
    command = [vllm_interpreter(), "-m", "vllm.entrypoints.cli.main", "serve", *model, *words]
    command += ["--port", str(free_port()), "--dtype", "bfloat16", "--enforce-eager"]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    told = cause_in(done.stdout + done.stderr)
    assert told is not None, (done.stdout + done.stderr)[-3000:]
    assert cause in told
