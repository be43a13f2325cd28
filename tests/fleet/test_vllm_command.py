"""Complete command lines of vLLM, from the entries of experts.yaml."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coe.base.errors import ArtifactError, ConfigError
from coe.fleet.vllm.command import each_replica, read_adapter_ranks, served_rank, vllm_processes
from tests.small_composition import config_of

FOLDER = Path("/srv/coe")
MODULE = "vllm.entrypoints.cli.main"


def test_base_and_two_adapters_share_one_process() -> None:
    config = config_of(
        {
            "llama": {"engine": "vllm", "model": "meta-llama/Llama-3.1-8B-Instruct", "context_tokens": 8192},
            "law": {
                "engine": "vllm",
                "model": "meta-llama/Llama-3.1-8B-Instruct",
                "adapter": "adapters/law",
                "context_tokens": 4096,
            },
            "med": {
                "engine": "vllm",
                "model": "meta-llama/Llama-3.1-8B-Instruct",
                "adapter": "/data/med",
                "served_model": "medical",
                "context_tokens": 4096,
            },
        },
        vllm={
            "python": "/opt/vllm/bin/python",
            "args": {"gpu-memory-utilization": 0.9, "enable_prefix_caching": True},
        },
    )
    (process,) = vllm_processes(config, FOLDER, {"law": 8, "med": 12})
    assert process.argv == (
        *("/opt/vllm/bin/python", "-m", MODULE, "serve", "meta-llama/Llama-3.1-8B-Instruct"),
        *("--served-model-name", "llama", "--host", "127.0.0.1", "--port", "8101"),
        *("--enable-lora", "--lora-modules", "law=/srv/coe/adapters/law", "medical=/data/med"),
        *("--enable-prompt-tokens-details", "--max-model-len", "8192", "--max-loras", "2", "--max-lora-rank", "16"),
        *("--gpu-memory-utilization", "0.9", "--enable-prefix-caching"),
    )
    assert process.name == "vllm-llama"
    assert process.experts == ("llama", "law", "med")


def test_replicas_have_ports_in_a_row_and_divide_the_gpus_that_are_named() -> None:
    config = config_of(
        {
            "a": {"engine": "vllm", "model": "m", "replicas": 2, "engine_env": {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}},
            "b": {"engine": "vllm", "model": "m"},
        },
        vllm={"first_port": 9000},
    )
    processes = each_replica(vllm_processes(config, FOLDER, {}))
    assert [(each.name, each.port, each.env.get("CUDA_VISIBLE_DEVICES")) for each in processes] == [
        ("vllm-a", 9000, "4,5"),
        ("vllm-a@2", 9001, "6,7"),
        ("vllm-b", 9002, None),
    ]
    assert [each.argv[each.argv.index("--port") + 1] for each in processes] == ["9000", "9001", "9002"]


def test_other_arguments_or_environment_make_another_process() -> None:
    config = config_of(
        {
            "big": {"engine": "vllm", "model": "m", "engine_args": {"tensor-parallel-size": 4}},
            "small": {
                "engine": "vllm",
                "model": "m",
                "engine_args": {"tensor-parallel-size": 1, "enforce-eager": False},
            },
            "pinned": {"engine": "vllm", "model": "m", "engine_env": {"CUDA_VISIBLE_DEVICES": "7"}},
        },
        vllm={"first_port": 9000, "env": {"HF_HOME": "/models", "VLLM_NO_USAGE_STATS": "0"}},
    )
    big, small, pinned = vllm_processes(config, FOLDER, {})
    assert big.argv == (
        *("python3", "-m", MODULE, "serve", "m", "--served-model-name", "big"),
        *(
            "--host",
            "127.0.0.1",
            "--port",
            "9000",
            "--enable-prompt-tokens-details",
            "--max-model-len",
            "4096",
            "--tensor-parallel-size",
            "4",
        ),
    )
    assert small.argv[-7:] == (
        "--port",
        "9001",
        "--enable-prompt-tokens-details",
        "--max-model-len",
        "4096",
        "--tensor-parallel-size",
        "1",
    )
    assert big.env == {"HF_HOME": "/models", "VLLM_NO_USAGE_STATS": "0"}
    assert pinned.env == {"HF_HOME": "/models", "VLLM_NO_USAGE_STATS": "0", "CUDA_VISIBLE_DEVICES": "7"}
    assert pinned.port == 9002


def test_adapters_alone_leave_the_base_under_its_model_name() -> None:
    config = config_of({"law": {"engine": "vllm", "model": "./base", "adapter": "law"}})
    (process,) = vllm_processes(config, FOLDER, {"law": 64})
    assert process.argv == (
        *("python3", "-m", MODULE, "serve", "/srv/coe/base", "--served-model-name", "./base"),
        *("--host", "127.0.0.1", "--port", "8101", "--enable-lora", "--lora-modules", "law=/srv/coe/law"),
        *("--enable-prompt-tokens-details", "--max-model-len", "4096", "--max-loras", "1", "--max-lora-rank", "64"),
    )


def test_an_engine_that_may_load_adapters_later_is_started_for_them() -> None:
    config = config_of(
        {"base": {"engine": "vllm", "model": "m"}}, vllm={"env": {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}}
    )
    (process,) = vllm_processes(config, FOLDER, {})
    assert process.argv[-1] == "--enable-lora"
    assert process.adapters == {}


def test_an_experts_arguments_win_over_the_engines_and_over_what_is_derived() -> None:
    config = config_of(
        {"a": {"engine": "vllm", "model": "m", "engine_args": {"max_model_len": 100, "dtype": "float16"}}},
        vllm={"args": {"--dtype": "auto", "max-num-seqs": 8}},
    )
    (process,) = vllm_processes(config, FOLDER, {})
    assert process.argv[-6:] == ("--max-model-len", "100", "--dtype", "float16", "--max-num-seqs", "8")


def test_entries_with_a_url_or_another_engine_start_nothing() -> None:
    config = config_of(
        {
            "elsewhere": {"engine": "vllm", "model": "m", "url": "http://10.0.0.7:8000/v1"},
            "fake": {"engine": "echo", "model": "m"},
        }
    )
    assert vllm_processes(config, FOLDER, {}) == ()


@pytest.mark.parametrize("flag", ["port", "--host", "served_model_name", "api-key", "lora-modules"])
def test_a_flag_that_another_key_sets_is_refused(flag: str) -> None:
    config = config_of({"a": {"engine": "vllm", "model": "m", "engine_args": {flag: "x"}}})
    with pytest.raises(ConfigError, match=r"experts\.a\.engine_args\.[a-z-]+: not allowed here; it comes from"):
        vllm_processes(config, FOLDER, {})


@pytest.mark.parametrize("other", [{"adapter": "adapters/med"}, {}])
def test_an_adapter_whose_name_another_expert_of_the_engine_has_is_refused(other: dict[str, object]) -> None:
    config = config_of(
        {
            "med": {"engine": "vllm", "model": "m", "served_model": "law"} | other,
            "law": {"engine": "vllm", "model": "m", "adapter": "adapters/law"},
        }
    )
    with pytest.raises(ConfigError, match=r"^experts\.law\.served_model: 'law' names another expert"):
        vllm_processes(config, FOLDER, {"law": 8, "med": 8})


def test_ports_that_run_out_are_named() -> None:
    config = config_of(
        {"a": {"engine": "vllm", "model": "m"}, "b": {"engine": "vllm", "model": "n"}},
        vllm={"first_port": 65535},
    )
    with pytest.raises(ConfigError, match=r"vllm\.first_port: 65535 leaves no port for 'b'"):
        vllm_processes(config, FOLDER, {})


@pytest.mark.parametrize(("rank", "served"), [(1, 1), (2, 8), (8, 8), (9, 16), (129, 256), (300, 320), (512, 512)])
def test_rank_is_rounded_up_to_what_vllm_accepts(rank: int, served: int) -> None:
    assert served_rank({"a": 1, "b": rank}) == served


def test_a_rank_above_the_largest_names_the_expert() -> None:
    with pytest.raises(ConfigError, match=r"experts\.b\.adapter: rank 513 .* at most 512"):
        served_rank({"a": 8, "b": 513})


def test_ranks_are_read_from_the_adapters_own_file(tmp_path: Path) -> None:
    config = config_of(
        {"law": {"engine": "vllm", "model": "m", "adapter": "law"}, "x": {"engine": "echo", "model": "m"}}
    )
    (tmp_path / "law").mkdir()
    (tmp_path / "law" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 24}))
    assert read_adapter_ranks(config, tmp_path) == {"law": 24}


@pytest.mark.parametrize("text", ["{", "{}", '{"r": "8"}', '{"r": 0}', '{"r": true}', "[]"])
def test_an_adapter_without_a_rank_is_refused(tmp_path: Path, text: str) -> None:
    config = config_of({"law": {"engine": "vllm", "model": "m", "adapter": "law"}})
    (tmp_path / "law").mkdir()
    (tmp_path / "law" / "adapter_config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"experts\.law\.adapter: .*adapter_config\.json"):
        read_adapter_ranks(config, tmp_path)


def test_a_missing_adapter_names_the_file(tmp_path: Path) -> None:
    config = config_of({"law": {"engine": "vllm", "model": "m", "adapter": "law"}})
    with pytest.raises(ArtifactError, match=r"experts\.law\.adapter: .*cannot be read \(No such file or directory\)"):
        read_adapter_ranks(config, tmp_path)
