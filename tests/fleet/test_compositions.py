"""Compositions on GPUs against figures worked out by hand from vLLM's source and the makers' shapes: what engines need,
which are awake, and which vLLM would refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coe.base.errors import ConfigError
from coe.fleet.hosts.vllm_gpus import on_gpus
from coe.fleet.vllm.command import each_replica, vllm_processes
from coe.fleet.vllm.memory import need_of, quantised, setup_of
from coe.fleet.vllm.model_sizes import model_of
from tests.fleet.published_models import MODELS, model
from tests.small_composition import config_of

TP = "tensor-parallel-size"
PUBLISHED_B = {
    **{"Llama-3.2-1B": 1.236, "Llama-3.2-3B": 3.213, "Llama-3.1-70B": 70.55, "Llama-3.1-405B": 405.85},
    **{"Qwen2.5-0.5B": 0.494, "Qwen2.5-1.5B": 1.544, "Qwen2.5-3B": 3.086, "Qwen2.5-72B": 72.71},
    **{"Qwen3-0.6B": 0.596, "Qwen3-14B": 14.77, "Qwen3-32B": 32.76, "Qwen3-235B-A22B": 235.1},
    **{"Mistral-7B-v0.1": 7.24, "Mistral-Nemo": 12.25, "Mistral-Small-24B": 23.57, "Mixtral-8x7B": 46.70},
    **{"gemma-2-2b": 2.614, "gemma-3-1b": 1.0, "Phi-3-mini": 3.82, "Phi-4-mini": 3.836, "Yi-1.5-34B": 34.39},
    **{"OLMo-2-7B": 7.30, "Command-R7B": 8.03, "starcoder2-7b": 7.17, "gpt-oss-20b": 20.9, "gpt-oss-120b": 116.8},
    **{"DeepSeek-V3": 671.0},
}
"""Billions of parameters, as the makers count them."""


@pytest.mark.parametrize(("name", "billions"), PUBLISHED_B.items())
def test_parameters_are_those_that_are_published(name: str, billions: float) -> None:
    counted = sum(each.count * each.elements for each in model(name).matrices) / 1e9
    assert counted == pytest.approx(billions, rel=0.003)


@pytest.mark.parametrize(
    ("name", "gpu_gib", "flags", "context", "weights", "cache", "activations"),
    [
        ("Llama-3.2-1B", 24, {}, 8192, 2.30, 0.25, 0.23),
        ("Llama-3.2-3B", 24, {}, 16384, 5.98, 1.75, 0.24),
        ("Llama-3.1-70B", 80, {TP: 4}, 32768, 32.85, 2.50, 1.07),
        ("Llama-3.1-70B", 80, {TP: 2, "quantization": "fp8"}, 16384, 33.83, 2.50, 1.40),
        ("Llama-3.1-70B", 80, {TP: 4, "pipeline-parallel-size": 2}, 32768, 16.43, 1.25, 1.07),
        ("Llama-3.1-405B", 80, {TP: 8, "quantization": "fp8"}, 8192, 47.74, 0.49, 1.29),
        ("Qwen2.5-0.5B", 80, {}, 32768, 0.92, 0.38, 0.83),
        ("Qwen2.5-1.5B", 80, {"kv-cache-dtype": "fp8"}, 32768, 2.88, 0.44, 1.04),
        ("Qwen2.5-3B", 80, {}, 8192, 5.75, 0.28, 1.15),
        ("Qwen2.5-32B", 80, {TP: 2}, 32768, 30.51, 4.00, 1.37),
        ("Qwen2.5-72B", 80, {"quantization": "awq_marlin"}, 8192, 38.64, 2.50, 2.18),
        ("Qwen3-0.6B", 80, {}, 40960, 1.11, 4.38, 0.75),
        ("Qwen3-14B", 179, {}, 40960, 27.51, 6.25, 2.49),
        ("Qwen3-32B", 80, {"quantization": "fp8"}, 8192, 31.96, 2.00, 1.91),
        ("Qwen3-30B-A3B", 80, {}, 32768, 56.85, 3.00, 0.92),
        ("Qwen3-235B-A22B", 80, {TP: 4, "quantization": "fp8"}, 32768, 55.02, 1.47, 0.85),
        ("Mistral-7B-v0.1", 80, {}, 32768, 13.49, 2.50, 0.90),
        ("Mistral-Nemo", 80, {}, 131072, 22.81, 20.0, 1.31),
        ("Mistral-Small-24B", 80, {}, 32768, 43.91, 5.00, 2.16),
        ("Mixtral-8x7B", 80, {TP: 2}, 32768, 43.49, 2.00, 0.90),
        ("gemma-2-2b", 80, {}, 8192, 4.87, 0.81, 1.47),
        ("gemma-3-1b", 80, {}, 32768, 1.86, 0.48, 1.35),
        ("Phi-3-mini", 80, {}, 4096, 7.12, 1.51, 0.59),
        ("Phi-4-mini", 80, {}, 16384, 7.14, 2.00, 1.23),
        ("Yi-1.5-34B", 80, {TP: 2}, 4096, 32.03, 0.47, 0.93),
        ("OLMo-2-7B", 80, {}, 4096, 13.59, 2.01, 1.01),
        ("Command-R7B", 80, {}, 32768, 14.95, 2.88, 1.76),
        ("starcoder2-7b", 80, {}, 16384, 13.36, 1.00, 1.17),
        ("bge-m3", 24, {"runner": "pooling"}, 8192, 1.04, 0.0, 0.05),
        ("Qwen3-Embedding-8B", 80, {"runner": "pooling"}, 8192, 15.25, 1.13, 0.69),
        ("gpt-oss-20b", 80, {}, 131072, 12.78, 3.38, 1.38),
        ("gpt-oss-120b", 80, {}, 131072, 60.53, 5.07, 1.38),
        ("DeepSeek-V2-Lite", 80, {}, 32768, 29.25, 0.95, 0.97),
        ("DeepSeek-V3", 141, {TP: 8}, 32768, 78.32, 2.15, 0.82),
    ],
)
def test_what_an_engine_needs_is_what_the_formulas_give(
    name: str, gpu_gib: float, flags: dict[str, Any], context: int, weights: float, cache: float, activations: float
) -> None:
    need = need_of(quantised(model(name), flags), setup_of(flags, gpu_gib), context)
    found = (need.weights, need.cache, need.activations)
    assert found == (*(pytest.approx(gib, abs=0.011) for gib in (weights, cache, activations)),)


Experts = dict[str, dict[str, Any]]


def eights(count: int, **entry: Any) -> Experts:
    one = {"model": "Llama-3.1-8B", **entry}
    return {f"e{number}": {**one, "engine_args": {"seed": number}} for number in range(count)}


def gpus_of_h100(count: int) -> dict[str, float]:
    return {str(number): 79.6 for number in range(count)}


@pytest.mark.parametrize(
    ("experts", "gpus", "awake"),
    [
        (eights(5), gpus_of_h100(1), {"e0": "0", "e1": "0", "e2": "0"}),
        (eights(5), gpus_of_h100(2), {"e0": "0", "e1": "1", "e2": "0", "e3": "1", "e4": "0"}),
        (eights(3), {"GPU-8f": 79.6}, {"e0": "GPU-8f", "e1": "GPU-8f", "e2": "GPU-8f"}),
        (eights(2), {"MIG-1": 39.25, "MIG-2": 39.25}, {"e0": "MIG-1", "e1": "MIG-2"}),
        (eights(2), {"MIG-1": 19.5, "MIG-2": 19.5}, {"e0": "MIG-1", "e1": "MIG-2"}),
        ({"a": {"model": "Llama-3.1-8B", "engine_args": {"data-parallel-size": 2}}}, gpus_of_h100(2), {"a": "0,1"}),
        ({"a": {"model": "Qwen2.5-72B", "engine_args": {TP: 2}}}, gpus_of_h100(2), {"a": "0,1"}),
        (
            {"mix": {"model": "Mixtral-8x7B", "engine_args": {TP: 2}}, **eights(2)},
            gpus_of_h100(2),
            {"mix": "0,1", "e0": "0", "e1": "1"},
        ),
        ({"oss": {"model": "gpt-oss-120b", "context_tokens": 131072}, **eights(1)}, gpus_of_h100(1), {"oss": "0"}),
        (
            {"v3": {"model": "DeepSeek-V3", "context_tokens": 32768, "engine_args": {TP: 8}}},
            {str(number): 141.0 for number in range(8)},
            {"v3": "0,1,2,3,4,5,6,7"},
        ),
        (
            {**eights(1), "bge": {"model": "bge-m3", "gpu_gib": 3, "engine_args": {"runner": "pooling"}}},
            {"0": 24.0},
            {"e0": "0", "bge": "0"},
        ),
    ],
)
def test_who_is_awake_and_where(experts: Experts, gpus: dict[str, float], awake: dict[str, str]) -> None:
    found = placed(experts, gpus)
    where = {each.process.experts[0]: each.process.env["CUDA_VISIBLE_DEVICES"] for each in found if not each.sleeps_at}
    assert where == awake


@pytest.mark.parametrize(
    ("experts", "gpus", "problem"),
    [
        (eights(5, context_tokens=32768, gpu_gib=18.9), gpus_of_h100(1), r"32768 tokens needs 20\.4 of 18\.9 GiB"),
        (
            {name: {"model": "gemma-2-9b", "gpu_gib": 21.5, "engine_args": {"seed": name}} for name in "gh"},
            gpus_of_h100(1),
            r"needs 21\.7 of 21\.5 GiB",
        ),
        ({"a": {"model": "Llama-3.1-70B"}}, gpus_of_h100(1), r"a: needs 1 GPU of 13\d\.\d GiB"),
        ({"a": {"model": "Llama-3.1-70B", "engine_args": {TP: 4}}}, gpus_of_h100(2), r"a: needs 4 GPU of 41\.1 GiB"),
        ({"a": {"model": "Llama-3.1-8B", "engine_args": {"data-parallel-size": 2}}}, gpus_of_h100(1), "needs 2 GPU"),
        ({"a": {"model": "DeepSeek-V3", "engine_args": {TP: 8}}}, gpus_of_h100(8), r"needs 8 GPU of 8\d\.\d GiB"),
        (eights(1), {"MIG-1": 9.5}, r"needs 1 GPU of 17\.4 GiB; there are MIG-1 with 9\.0 GiB"),
        ({"a": {"model": "Qwen2.5-32B", "context_tokens": 131072}}, gpus_of_h100(1), "needs 1 GPU of 9"),
        ({"a": {"model": "Mistral-Nemo", "context_tokens": 131073}}, gpus_of_h100(1), "at most the 131072 that"),
    ],
)
def test_what_cannot_start_is_refused(experts: Experts, gpus: dict[str, float], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        placed(experts, gpus)


def placed(experts: Experts, gpus: dict[str, float]) -> Any:
    entries = {name: {"engine": "vllm", "context_tokens": 8192, **entry} for name, entry in experts.items()}
    vllm = {"args": {"enable-sleep-mode": True}}
    config = config_of(entries, vllm=vllm, residency={"memory_gb": 76})
    return on_gpus(
        config,
        each_replica(vllm_processes(config, Path(), {})),
        gpus,
        {name: model_of(values) for name, values in MODELS.items()},
    )
