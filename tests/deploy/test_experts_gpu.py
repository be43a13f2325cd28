"""The composition for GPUs is one that loads, and whose command lines are the ones meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from coe.fleet.hosts.vllm_gpus import on_gpus
from coe.fleet.vllm.command import vllm_processes
from coe.gateway.check import find_problems
from coe.gateway.deploy.deployment import Target, plan_deployment, rendered
from coe.router.config.composition import CoeConfig, load_config, parse_config
from coe.router.config.expert import Engine

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "experts.gpu.yaml"


@pytest.fixture
def with_adapters() -> CoeConfig:
    """The file as it is once the entries of its two adapters are put in."""
    text = re.sub(r"^  #(?! \S)", "  ", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)  # prose has `# Word`
    return parse_config(yaml.safe_load(text))


def test_check_finds_no_problem() -> None:
    assert find_problems(load_config(FILE), FILE) == []


def test_it_loads_and_has_the_categories_of_the_default() -> None:
    config = load_config(FILE)
    assert config.categories == load_config(ROOT / "experts.yaml").categories
    assert {entry.engine for entry in config.experts.values()} == {Engine.VLLM, Engine.LITELLM}
    assert config.policies["default"].budgets.active_params_b == 31


def test_no_gpu_is_given_away_twice_and_adapters_share_their_base(with_adapters: CoeConfig) -> None:
    processes = vllm_processes(with_adapters, FILE.parent, {"extractor": 16, "sql-writer": 32})
    assert [process.experts for process in processes] == [
        ("generalist",),
        ("coder",),
        ("writer",),
        ("mathematician",),
        ("assistant", "extractor", "sql-writer"),
    ]
    memory_of: dict[str, float] = {}
    for process in processes:
        share = float(process.argv[process.argv.index("--gpu-memory-utilization") + 1])
        for gpu in process.env["CUDA_VISIBLE_DEVICES"].split(","):
            memory_of[gpu] = memory_of.get(gpu, 0.0) + share
    assert sorted(memory_of) == ["0", "1", "2", "3", "4", "5"]
    assert max(memory_of.values()) <= 0.95


def test_the_command_of_the_shared_base_is_complete(with_adapters: CoeConfig) -> None:
    *_, llama = vllm_processes(with_adapters, Path("/etc/coe"), {"extractor": 16, "sql-writer": 32})
    assert llama.argv == (
        *("/opt/vllm/bin/python", "-m", "vllm.entrypoints.cli.main", "serve"),
        *("meta-llama/Llama-3.1-8B-Instruct", "--served-model-name", "assistant"),
        *("--host", "127.0.0.1", "--port", "8105", "--enable-lora", "--lora-modules"),
        "extractor=/etc/coe/adapters/llama-3.1-8b/extractor",
        "sql-writer=/etc/coe/adapters/llama-3.1-8b/sql-writer",
        *("--enable-prompt-tokens-details", "--max-model-len", "16384", "--max-loras", "2", "--max-lora-rank", "32"),
        *("--gpu-memory-utilization", "0.48", "--enable-prefix-caching", "--max-num-seqs", "128"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "llama3_json"),
    )
    assert llama.env["CUDA_VISIBLE_DEVICES"] == "5"


@pytest.mark.parametrize(
    ("gpus", "asleep"),
    [(1, {"gemma-9b": 1, "gemma-27b": 1, "llama-70b": 2}), (2, {"gemma-27b": 1, "llama-70b": 2})],
)
def test_the_models_of_the_paper_take_turns_on_one_and_on_two_gpus(gpus: int, asleep: dict[str, int]) -> None:
    file = ROOT / "deploy" / "experts.paper.yaml"
    config = load_config(file)
    assert find_problems(config, file) == []
    assert config.categories == load_config(ROOT / "experts.yaml").categories
    processes = vllm_processes(config, file.parent, {})
    placed = on_gpus(config, processes, {str(number): 79.6 for number in range(gpus)})
    assert {each.process.experts[0]: each.sleeps_at for each in placed if each.sleeps_at} == asleep


def test_retrieval_on_one_gpu_has_its_engines_beside_the_language_model_and_is_rendered_with_them() -> None:
    file = ROOT / "deploy" / "experts.retrieval.yaml"
    config = load_config(file)
    assert find_problems(config, file) == []
    assert config.categories == load_config(ROOT / "experts.yaml").categories
    placed = on_gpus(config, vllm_processes(config, file.parent, {}), {"0": 23.7})
    names = ["bge", "qwen", "e5", "cross", "assistant"]
    assert [(each.process.experts[0], each.sleeps_at) for each in placed] == [(name, None) for name in names]
    assert [each.process.flags.get("runner") for each in placed] == [*["pooling"] * 4, None]
    services = yaml.safe_load(
        rendered(plan_deployment(file, image="coe", vllm_image="v"), Target.COMPOSE)["compose.yaml"]
    )
    assert {f"vllm-{name}" for name in names} <= services["services"].keys()
    text = rendered(plan_deployment(file, image="coe", vllm_image="v"), Target.KUBERNETES)["gateway.yaml"]
    values = next(each for each in yaml.safe_load_all(text) if each and each["kind"] == "ConfigMap")
    retrieval = parse_config(yaml.safe_load(values["data"]["experts.yaml"])).retrieval
    assert retrieval.encoder.options["url"] == "http://vllm-bge:8000/v1"
    assert (retrieval.reranker.url, retrieval.reranker.model) == ("http://vllm-cross:8000/v1", "cross")
    assert retrieval.reranker.api_key_env == "VLLM_API_KEY"
