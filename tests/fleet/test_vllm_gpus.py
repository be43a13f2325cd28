"""From entries to processes on GPUs: what each needs, which GPUs it sees, and its share of their memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coe.base.errors import ConfigError
from coe.fleet import gpus
from coe.fleet.gpus import visible_gpus
from coe.fleet.hosts.vllm_gpus import Placed, gpus_needed, on_gpus, placed_processes, sized
from coe.fleet.vllm.command import VllmProcess, each_replica, vllm_processes
from coe.router.config.composition import CoeConfig
from tests.small_composition import config_of

NVIDIA_SMI = """#!/bin/sh
if [ "$1" = -L ]; then
  echo 'GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-22)'
  echo '  MIG 3g.40gb     Device  0: (UUID: MIG-aa-1)'
  echo '  MIG 1g.10gb     Device  1: (UUID: MIG-bb-2)'
else
  echo '0, GPU-11-1, 81559'
  echo '1, GPU-22-2, 24576'
fi
"""
TWO = {"0": 80.0, "1": 80.0}
SLEEPING, TURNS = {"args": {"enable-sleep-mode": True}}, {"residency": {"memory_gb": 76}}


def composition(
    experts: dict[str, dict[str, object]], vllm: dict[str, object] | None = None, **sections: object
) -> tuple[CoeConfig, tuple[VllmProcess, ...]]:
    entries = {name: {"engine": "vllm", "model": name, **entry} for name, entry in experts.items()}
    config = config_of(entries, vllm=vllm or {}, **sections)
    return config, each_replica(vllm_processes(config, Path(), {}))


@pytest.mark.parametrize(
    ("entry", "gib", "gpus"),
    [
        ({"params_b": 7.25}, 13.56 + 4.0, 1),
        ({"params_b": 72.7, "model": "Qwen/Qwen2.5-72B-Instruct-AWQ"}, 40.71 * 1.25, 1),
        ({"params_b": 32.8, "engine_args": {"tensor-parallel-size": 2}}, 61.34 * 1.25 / 2, 2),
        ({"params_b": 8.0, "engine_args": {"quantization": "fp8"}}, 7.84 + 4.0, 1),
        ({"params_b": 8.0, "gpu_gib": 30.0}, 30.0, 1),
        ({"params_b": 8.0, "engine_args": {"gpu_memory_utilization": 0.42}}, 33.6, 1),
        ({}, 72.0, 1),
        ({"params_b": 7.25, "engine_args": {"data-parallel-size": 2}}, 13.56 + 4.0, 2),
        ({"gpu_gib": 9.0, "engine_env": {"CUDA_VISIBLE_DEVICES": "0, 1"}}, 9.0, 2),
    ],
)
def test_an_engine_needs_what_its_entry_tells(entry: dict[str, object], gib: float, gpus: int) -> None:
    config, (process,) = composition({"a": entry})
    assert (sized(config, process, TWO, None).gib, gpus_needed(process)) == (pytest.approx(gib, abs=0.01), gpus)


def test_replicas_are_spread_and_awake_or_asleep_together() -> None:
    several: dict[str, dict[str, object]] = {"a": {"gpu_gib": 30, "replicas": 2}, "b": {"gpu_gib": 60, "replicas": 2}}
    config, processes = composition(several, SLEEPING, **TURNS)
    placed = [
        (each.process.name, each.process.env["CUDA_VISIBLE_DEVICES"], each.sleeps_at)
        for each in on_gpus(config, processes, TWO)
    ]
    assert placed == [("vllm-a", "0", None), ("vllm-a@2", "1", None), ("vllm-b", "0", 2), ("vllm-b@2", "1", 2)]
    with pytest.raises(ConfigError, match=r"vllm-b: needs 60\.0 GiB for each of its 2 replicas on GPU 0, beside"):
        on_gpus(config, processes, {"0": 80.0})


def test_engines_that_share_a_gpu_get_their_share_and_one_alone_what_vllm_takes() -> None:
    config, processes = composition({"a": {"gpu_gib": 30}, "b": {"gpu_gib": 20}, "c": {"gpu_gib": 70}})
    placed = {each.process.experts[0]: each.process for each in on_gpus(config, processes, TWO)}
    assert {name: process.env["CUDA_VISIBLE_DEVICES"] for name, process in placed.items()} == {
        "a": "1",
        "b": "1",
        "c": "0",
    }
    assert placed["a"].argv[-2:] == ("--gpu-memory-utilization", "0.375")
    assert placed["b"].argv[-2:] == ("--gpu-memory-utilization", "0.250")
    assert "--gpu-memory-utilization" not in placed["c"].argv


def test_those_that_take_turns_wait_where_the_host_has_room_for_their_weights() -> None:
    experts = {"a": {"gpu_gib": 60}, "b": {"gpu_gib": 60}, "c": {"gpu_gib": 60, "params_b": 8.0}}
    config, processes = composition(experts, SLEEPING, **TURNS)
    levels = {p.process.experts[0]: p.sleeps_at for p in on_gpus(config, processes, {"0": 80.0})}
    assert levels == {"a": None, "b": 2, "c": 2}
    config, processes = composition(experts, SLEEPING, residency={"memory_gb": 76, "host_memory_gb": 40})
    levels = {p.process.experts[0]: p.sleeps_at for p in on_gpus(config, processes, {"0": 80.0})}
    assert levels == {"a": None, "b": 2, "c": 1}  # 15 GiB of weights, pinned 28
    for vllm, sections in (({}, TURNS), (SLEEPING, {})):  # without sleep mode, or without anybody to wake them
        config, processes = composition(experts, vllm, **sections)
        with pytest.raises(ConfigError, match="`residency`, and `enable-sleep-mode: true`"):
            on_gpus(config, processes, {"0": 80.0})


def test_without_gpus_nothing_changes_and_a_gpu_that_is_not_there_is_refused() -> None:
    config, processes = composition({"a": {"engine_env": {"CUDA_VISIBLE_DEVICES": "GPU-8f"}}})
    assert on_gpus(config, processes, {}) == [Placed(processes[0])]
    with pytest.raises(ConfigError, match="GPU GPU-8f is not there; allowed: 0, 1"):
        on_gpus(config, processes, TWO)


def test_the_gpus_are_those_that_nvidia_smi_lists_and_the_environment_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({}) == {}
    tool = tmp_path / "nvidia-smi"
    tool.write_text(NVIDIA_SMI)
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    assert visible_gpus({}) == {"0": pytest.approx(79.65, abs=0.01), "1": 24.0}
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1"}) == {"1": 24.0}
    assert list(visible_gpus({"CUDA_VISIBLE_DEVICES": "0, 1"})) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == {}
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-22,MIG-bb-2"}) == {"GPU-22": 24.0, "MIG-bb-2": 10.0}
    assert visible_gpus({}, ["GPU-11-1", "MIG-aa-1"]) == {"GPU-11-1": 81559 / 1024, "MIG-aa-1": 40.0, "1": 24.0}
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "7,GPU-33"}) == {}


def test_gpus_of_amd_are_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "AMD", tmp_path)
    config, _ = composition({"a": {}})
    with pytest.raises(ConfigError, match=r"vllm\.gpus: this host has AMD GPUs"):
        placed_processes(config, tmp_path, {})
    config, _ = composition({"a": {"gpu_gib": 90}}, {"gpus": {"0": 192, "1": 192}})
    assert placed_processes(config, tmp_path, {})[0].process.env["CUDA_VISIBLE_DEVICES"] == "0"


def test_engines_see_gpus_in_the_order_of_nvidia_smi() -> None:
    config, processes = composition({"a": {"gpu_gib": 30}})
    (placed,) = on_gpus(config, processes, TWO)
    assert placed.process.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
