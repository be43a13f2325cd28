"""`coe doctor gpu` on fakes of vLLM that share a GPU, and what it makes of what it finds."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from coe.fleet.doctor import models
from coe.fleet.doctor.models import SHAPES, Shape, tensors_of, write_adapter, write_model
from coe.fleet.doctor.report import examine
from coe.fleet.figures import figures_file, read_figures
from coe.router.config.composition import VllmConfig
from tests.fake_vllm.interpreter import fake_interpreter

NVIDIA_SMI = """#!/bin/sh
[ "$1" = --query-gpu=memory.free ] || exit 1
free=81920
for file in {card}/0.[0-9]*; do
  kill -0 "${{file##*.}}" 2>/dev/null && free=$(echo "$free $(cat "$file")" | awk '{{print $1 - $2 * 1024}}')
done
echo "$free"
"""


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How the fake is started on a GPU of 80 GiB, which nvidia-smi lists."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(NVIDIA_SMI.format(card=tmp_path / "card"))
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("1b", "8b"):
        monkeypatch.setitem(SHAPES, name, SHAPES["tiny"])
    args = {"fake-card": str(tmp_path / "card"), "fake-weights-gib": 2.5, "fake-wake-s": "0.2,0.1"}
    return {"python": fake_interpreter(tmp_path), "args": args, "gpus": {"0": 80}}


async def test_a_gpu_is_examined_and_what_is_measured_is_planned_with(tmp_path: Path, vllm: dict[str, Any]) -> None:
    said: list[str] = []
    environment = dict(os.environ)
    findings = await examine(VllmConfig.model_validate(vllm), tmp_path / "data", environment, said.append)
    assert {each.verdict for each in findings} == {"proved", "measured"}, findings
    details = {each.name: each.detail for each in findings}
    assert details["sleep 1, sleep 2 and wake keep every answer"].startswith("8 models and adapters; ")
    assert details["a full GPU is told as the reason"] == "refused beside 73 GiB of another process"
    assert "24 requests, " in details["engines take turns for requests by name"]
    assert said[:2] == ["writing model 1 of 7", "writing model 2 of 7"]
    figures = read_figures(tmp_path / "data")
    assert (figures.cuda_gib, figures.graphs_gib, figures.sleeper_gib) == (pytest.approx(0.5), 0.5, 1.0)
    assert dict(figures.times["wake_1_s"])[SHAPES["tiny"].billions] > 0.2
    page = (tmp_path / "data" / "doctor" / "gpu.md").read_text()
    assert page.startswith("# Engines on GPU 0 of 80.0 GiB\n\n## Broken\n\nnothing\n\n## Proved\n\n- **engines start**")
    found = json.loads((tmp_path / "data" / "doctor" / "gpu.json").read_text())
    assert found["engines"]["1b-0"].items() >= {"weights": 2.5, "peak": 1.75}.items()


@pytest.mark.slow
async def test_weights_that_do_not_come_back_are_found_and_the_rest_is_tried(
    tmp_path: Path, vllm: dict[str, Any]
) -> None:
    vllm["args"]["fake-bugs"] = "wrong_weights"
    config = VllmConfig.model_validate(vllm)
    findings = await examine(config, tmp_path / "data", dict(os.environ), lambda _: None)
    broken = {each.name: each.detail for each in findings if each.verdict == "broken"}
    assert "answers otherwise than before" in broken["sleep 1, sleep 2 and wake keep every answer"]
    assert {each.name for each in findings if each.verdict == "proved"} >= {"engines start"}


@pytest.mark.slow
async def test_without_a_gpu_nothing_is_planned_with(tmp_path: Path, vllm: dict[str, Any]) -> None:
    config = VllmConfig.model_validate({**vllm, "gpus": {}, "args": {"enable-sleep-mode": True}})
    environment = dict(os.environ) | {"CUDA_VISIBLE_DEVICES": ""}
    findings = await examine(config, tmp_path / "data", environment, lambda _: None)
    assert {each.verdict for each in findings} == {"proved", "measured"}, findings
    assert not figures_file(tmp_path / "data").exists()


def test_models_of_random_weights_are_whole_and_differ(tmp_path: Path) -> None:
    shape = Shape(2, 64, 96, 4, 2, 300)
    for seed in (0, 1):
        write_model(tmp_path / str(seed), shape, seed, 128)
    config = json.loads((tmp_path / "0" / "config.json").read_text())
    assert (config["num_key_value_heads"], config["max_position_embeddings"]) == (2, 128)
    words = json.loads((tmp_path / "0" / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(words.values()) == [*range(300)]
    assert (words["a"], words["Ġ"]) == (ord("a"), ord(" "))
    raw = [(tmp_path / str(seed) / "model.safetensors").read_bytes() for seed in (0, 1)]
    assert raw[0] != raw[1]
    with safe_open(tmp_path / "0" / "model.safetensors", "np") as tensors:
        assert {name: tensors.get_slice(name).get_shape() for name in tensors.keys()} == {  # noqa: SIM118
            name: [columns] if rows == 1 else [rows, columns] for name, (rows, columns) in tensors_of(shape).items()
        }
    begin = 8 + int.from_bytes(raw[0][:8], "little")
    numbers = (np.frombuffer(raw[0][begin : begin + 2 * 300 * 64], np.uint16).astype(np.uint32) << 16).view(np.float32)
    assert numbers.std() == pytest.approx(models.STD, rel=0.05)
    assert len(np.unique(numbers.reshape(300, 64), axis=0)) == 300
    write_adapter(tmp_path / "adapter", shape, 2)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 8
