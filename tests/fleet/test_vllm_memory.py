"""Memory of vLLM's engines: published models against what vLLM's source says of them, and what others measured."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from coe.base.errors import ConfigError, DataError
from coe.fleet.figures import USUAL, Figures, figures_file, read_figures, write_figures
from coe.fleet.hosts.vllm_gpus import Placed, on_gpus, placed_processes, plan_lines
from coe.fleet.residency.types import published_times
from coe.fleet.vllm.command import each_replica, vllm_processes
from coe.fleet.vllm.memory import Setup, cache_bytes, longest_context, need_of, pinned_gib, setup_of, size_of
from coe.fleet.vllm.model_sizes import model_of, read_model
from coe.gateway.check import find_problems
from tests.fleet.published_models import MODELS, model
from tests.small_composition import config_of
from tests.vllm_build import vllm_interpreter


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        *(("Llama-3.1-8B", 8.03), ("Qwen2.5-7B", 7.62), ("Qwen3-8B", 8.19), ("gemma-2-9b", 9.24), ("phi-4", 14.66)),
        *(("gemma-2-27b", 27.23), ("Qwen3-30B-A3B", 30.5), ("DeepSeek-V2-Lite", 15.7), ("Qwen3-4B", 4.02)),
    ],
)
def test_parameters_are_those_that_are_published(name: str, billions: float) -> None:
    counted = sum(each.count * each.elements for each in model(name).matrices) / 1e9
    assert counted == pytest.approx(billions, rel=0.002)


@pytest.mark.parametrize(
    ("name", "has_gib", "at_8k", "at_16k", "at_32k"),
    [
        ("Qwen2.5-7B", 18.2, "starts", "starts", "maybe"),
        ("Llama-3.1-8B", 18.9, "starts", "maybe", "refused"),
        ("Qwen3-8B", 19.3, "starts", "maybe", "refused"),
        ("Mistral-7B", 17.5, "starts", "maybe", "refused"),
        ("gemma-2-9b", 21.5, "refused", "refused", "refused"),
        ("Qwen3-4B", 11.5, "starts", "maybe", "refused"),
        ("Qwen2.5-14B", 34.6, "starts", "starts", "refused"),
        ("phi-4", 34.3, "starts", "starts", "refused"),
    ],
)
def test_what_starts_in_a_share_of_80_gb(name: str, has_gib: float, at_8k: str, at_16k: str, at_32k: str) -> None:
    found = []
    for context in (8192, 16384, 32768):
        need = need_of(model(name), Setup(), context)
        found.append("refused" if need.least > has_gib else "starts" if need.safe <= has_gib else "maybe")
    assert found == [at_8k, at_16k, at_32k]


@pytest.mark.parametrize(
    ("name", "published"), [("Qwen2.5-7B", 26.8), ("gemma-2-27b", 81.6), ("Qwen2.5-32B", 112.0), ("Qwen3-8B", 22.0)]
)
def test_pinned_host_memory_is_what_was_measured(name: str, published: float) -> None:
    assert pinned_gib(model(name), Setup()) == pytest.approx(published, rel=0.06)


def test_activations_are_what_was_measured() -> None:
    assert need_of(model("Llama-3.1-8B"), Setup(), 8192).activations == pytest.approx(1.26, abs=0.02)


def test_the_longest_context_is_the_last_that_fits() -> None:
    for name, gib in (("Llama-3.1-8B", 18.9), ("Qwen3-8B", 19.3), ("gemma-2-27b", 60.0), ("Qwen3-30B-A3B", 62.0)):
        longest = longest_context(model(name), Setup(), gib)
        assert longest > 1000
        assert need_of(model(name), Setup(), longest).least <= gib < need_of(model(name), Setup(), longest + 16).least
    assert longest_context(model("Qwen2.5-32B"), Setup(), 60.0) == 0


def test_flags_change_what_is_needed() -> None:
    def need(**flags: Any) -> Any:
        size = size_of([ENTRY], {flag.replace("_", "-"): value for flag, value in flags.items()}, llama, 80.0)
        return size.need

    llama, whole = model("Llama-3.1-8B"), need_of(model("Llama-3.1-8B"), Setup(), 8192)
    assert need() == whole
    half = need(tensor_parallel_size=2)
    assert (half.weights, half.cache) == (pytest.approx(whole.weights / 2), pytest.approx(whole.cache / 2))
    assert need(data_parallel_size=2) == whole
    assert need(quantization="fp8").weights == pytest.approx(6.98e9 / 2**30 + 2 * 1.05e9 / 2**30, rel=0.01)
    assert need(kv_cache_dtype="fp8").cache == pytest.approx(whole.cache / 2)
    assert need(enforce_eager=True).safe == need().least
    assert need(runner="pooling").activations == pytest.approx(whole.activations - 4 * 1024 * 128256 / 2**30)
    assert need(max_num_seqs=64, max_num_batched_tokens=2048).activations == pytest.approx(0.226, abs=0.01)
    # rank 16 of one adapter: 41.9 million weights by PEFT, in 16 bits
    assert need(enable_lora=True).weights - whole.weights == pytest.approx(2 * 41.9e6 / 2**30, rel=0.01)
    assert setup_of({}, 24.0) == Setup(tokens=2048, sequences=256, rank=16)


ENTRY = config_of({"a": {"engine": "vllm", "model": "m", "context_tokens": 8192}}).experts["a"]


def test_formats_of_weights_are_read_from_the_model() -> None:
    bits = {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}, "quant_method": "compressed-tensors"}
    for format, gib in (({"quant_method": "awq", "bits": 4}, 5.34), ({"quant_method": "fp8"}, 8.46), (bits, 5.34)):
        found = model_of({**MODELS["Llama-3.1-8B"], "quantization_config": format})
        assert found is not None
        assert need_of(found, Setup(), 8192).weights == pytest.approx(gib, abs=0.05)


@pytest.mark.parametrize(
    "more",
    [{"vision_config": {}}, {"layer_types": ["linear_attention"]}, {"model_type": "mamba2"}, {"hidden_size": None}],
)
def test_models_that_are_not_counted_here_are_none(more: dict[str, object]) -> None:
    assert model_of({**MODELS["Llama-3.1-8B"], **more}) is None


def folder_of(path: Path, name: str, **more: object) -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**MODELS[name], **more}))
    return str(path)


def test_a_config_is_read_from_a_folder_or_from_the_cache_of_the_hub(tmp_path: Path) -> None:
    assert read_model(folder_of(tmp_path / "own", "phi-4"), {}) == model("phi-4")
    kept = tmp_path / "hub" / "models--maker--phi"
    (kept / "snapshots").mkdir(parents=True)
    folder_of(kept / "snapshots" / "abc", "phi-4")
    assert read_model("maker/phi", {"HF_HOME": str(tmp_path)}) is None
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    assert read_model("maker/phi", {"HF_HOME": str(tmp_path)}) == model("phi-4")
    assert read_model("maker/other", {"HF_HUB_CACHE": str(tmp_path / "hub")}) is None


def five(model: str, **entry: object) -> Any:
    experts = {f"e{number}": {"engine": "vllm", "model": model, "params_b": 8.0, **entry} for number in range(5)}
    for number, each in enumerate(experts.values()):
        each["engine_args"] = {"seed": number}  # each an engine of its own
    vllm = {"args": {"enable-sleep-mode": True}, "gpus": {"0": 79.6}}
    return config_of(experts, vllm=vllm, residency={"memory_gb": 76})


def placed(config: Any) -> list[Placed]:
    return placed_processes(config, Path(), {})


def test_five_of_8b_start_on_80_gb_at_8k_and_three_are_awake(tmp_path: Path) -> None:
    found = placed(five(folder_of(tmp_path / "llama", "Llama-3.1-8B"), context_tokens=8192))
    assert [each.sleeps_at for each in found] == [None, None, None, 2, 2]
    (line, *_) = plan_lines(found)
    assert line == (
        "vllm-e0: GPU 0, 19.0 GiB of each, awake; one request of 8192 tokens needs 17.4 (weights 15.0, cache 1.0, "
        "activations 1.3, CUDA 0.16) and up to 1.0 for graphs; longest context 21024"
    )


def test_figures_that_were_measured_take_the_place_of_published_ones(tmp_path: Path) -> None:
    config = five(folder_of(tmp_path / "llama", "Llama-3.1-8B"), context_tokens=8192)
    assert read_figures(tmp_path) == USUAL
    write_figures(tmp_path, Figures(cuda_gib=0.9, graphs_gib=3.5, sleeper_gib=9.0, times={"sleep_1_s": ((8.0, 3.0),)}))
    figures = read_figures(tmp_path)
    found = placed_processes(config, Path(), {}, figures)
    assert [each.sleeps_at for each in found] == [None, None, 2, 2, 2]
    line = plan_lines(found)[0]
    assert "vllm-e0: GPU 0, 21.6 GiB" in line
    assert "needs 18.1 (weights 15.0, cache 1.0, activations 1.3, CUDA 0.90) and up to 3.5 for graphs" in line
    twice = Setup(figures=Figures(activations=2.0, pinned=2.0))
    assert need_of(model("phi-4"), twice, 8192).activations == 2 * need_of(model("phi-4"), Setup(), 8192).activations
    assert pinned_gib(model("phi-4"), twice) == 2 * pinned_gib(model("phi-4"), Setup())
    assert published_times(16.0, figures.times).sleep_1_s == pytest.approx(6.0)
    assert published_times(8.0, figures.times).wake_1_s == pytest.approx(2.19)
    figures_file(tmp_path).write_text('{"cuda": 1}')
    with pytest.raises(DataError, match=r"measured\.json cannot be read: delete it"):
        read_figures(tmp_path)


@pytest.mark.parametrize(
    ("name", "entry", "problem"),
    [
        (
            "Llama-3.1-8B",
            {"context_tokens": 32768, "gpu_gib": 18.9},
            r"32768 tokens needs 20\.4 of 18\.9 GiB .* allowed: `context_tokens` up to 20560, or `gpu_gib` from 21\.4",
        ),
        ("gemma-2-9b", {"context_tokens": 8192, "gpu_gib": 21.5}, r"8192 tokens needs 21\.7 of 21\.5 GiB"),
        ("Llama-3.1-8B", {"context_tokens": 200000}, r"context_tokens: .* allowed: at most the 131072"),
    ],
)
def test_what_vllm_would_refuse_is_refused_with_the_number_to_change(
    name: str, entry: dict[str, object], problem: str, tmp_path: Path
) -> None:
    config = five(folder_of(tmp_path / "model", name), **entry)
    with pytest.raises(ConfigError, match=problem):
        placed(config)
    (found,) = find_problems(config, tmp_path / "experts.yaml", {})
    assert "experts.e0" in found


def test_an_adapter_whose_rank_cannot_be_read_is_told_once_beside_the_plan(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    folder = folder_of(tmp_path / "model", "Llama-3.1-8B")
    config = config_of({"a": {"engine": "vllm", "model": folder, "adapter": str(adapter)}}, vllm={"gpus": {"0": 80}})
    (found,) = find_problems(config, tmp_path / "experts.yaml", {})
    assert "names no rank 'r'" in found


def test_without_a_share_the_context_gets_the_memory_that_it_needs(tmp_path: Path) -> None:
    found = placed(five(folder_of(tmp_path / "llama", "Llama-3.1-8B"), context_tokens=32768))
    assert [each.size.gib for each in found if each.size] == [pytest.approx(21.4, abs=0.05)] * 5
    assert sum(each.sleeps_at is None for each in found) == 3


def test_one_that_is_alone_is_refused_where_the_gpu_is_too_small(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "Llama-3.1-8B")
    config = config_of({"a": {"engine": "vllm", "model": folder, "gpu_gib": 15.0, "context_tokens": 131072}})
    processes = each_replica(vllm_processes(config, Path(), {}))
    with pytest.raises(ConfigError, match=r"needs 31\.[0-9] of 21\.6 GiB"):
        on_gpus(config, processes, {"0": 24.0}, {folder: model("Llama-3.1-8B")})


SPECS = """
import json, sys, torch
from types import SimpleNamespace
from vllm.v1.kv_cache_interface import FullAttentionSpec, SlidingWindowSpec
found = []
for layers, windowed, window, heads, head, length, tokens in json.loads(sys.argv[1]):
    config = SimpleNamespace(
        max_in_flight_tokens=2 * tokens,
        model_config=SimpleNamespace(max_model_len=length),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1),
    )
    sizes = dict(block_size=16, num_kv_heads=heads, head_size=head, dtype=torch.bfloat16)
    full = FullAttentionSpec(**sizes)
    total = (layers - windowed) * (full.max_memory_usage_bytes(config) + full.page_size_bytes)
    if windowed:
        part = SlidingWindowSpec(sliding_window=window, dcp_sharded=False, **sizes)
        total += windowed * (part.max_memory_usage_bytes(config) + part.page_size_bytes)
    found.append(total)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_cache_of_a_request_is_vllms_own() -> None:
    cases = [
        (name, context, tokens)
        for name in ("Llama-3.1-8B", "gemma-2-9b", "gemma-2-27b", "Qwen2.5-14B")
        for context in (1000, 8192, 32768, 100_001)
        for tokens in (2048, 8192)
    ]
    asked = []
    for name, context, tokens in cases:
        each = model(name)
        asked.append((each.layers, each.windowed, each.window, each.kv_heads, each.head // 2, context, tokens))
    command = [vllm_interpreter(), "-c", SPECS, json.dumps(asked)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    ours = [cache_bytes(model(name), Setup(tokens=tokens), context) for name, context, tokens in cases]
    assert ours == told
