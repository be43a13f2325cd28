"""Processes for entries of experts.yaml."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from coe.base.errors import EngineError, MissingWeightsError
from coe.fleet.hosts.engine_plans import llamacpp_plans, refuse_taken_ports, secrets_of, vllm_plans
from coe.fleet.hosts.llamacpp import EngineOptions
from tests.small_composition import config_of


def test_one_llamacpp_process_per_base_model(tmp_path: Path) -> None:
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    config = config_of(
        {
            "a": {"engine": "llamacpp", "model": "one.gguf"},
            "b": {"engine": "llamacpp", "model": "two.gguf"},
            "c": {"engine": "llamacpp", "model": "one.gguf"},
            "d": {"engine": "vllm", "model": "m"},
        },
        llamacpp={"slots": 3, "context_tokens": 512, "threads": 5},
    )
    one, two = llamacpp_plans(config, tmp_path, tmp_path / "data", {"HOME": "/root"})
    assert (one.experts, two.experts) == (("a", "c"), ("b",))
    assert one.spec.argv[:-1] == (sys.executable, "-P", "-m", "coe.fleet.hosts.llamacpp")
    options = EngineOptions(str(tmp_path / "one.gguf"), (), one.port, 3, 512, 5)
    assert json.loads(one.spec.argv[-1]) == {**asdict(options), "adapters": []}
    assert one.spec.is_ready.args == (f"http://127.0.0.1:{one.port}/health",)
    assert one.url == f"http://127.0.0.1:{one.port}/v1"
    assert one.spec.env == {"HOME": "/root"}
    assert two.spec.log == tmp_path / "data" / "engines" / "llamacpp-2.log"
    assert one.port != two.port


def test_a_model_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    config = config_of({"a": {"engine": "llamacpp", "model": "gone.gguf"}})
    with pytest.raises(MissingWeightsError, match=r"^experts\.a\.model: weights 'gone\.gguf' are not at .*$"):
        llamacpp_plans(config, tmp_path, tmp_path, {})


def test_vllm_gets_our_environment_and_its_own(tmp_path: Path) -> None:
    config = config_of(
        {"a": {"engine": "vllm", "model": "m", "engine_env": {"CUDA_VISIBLE_DEVICES": "3"}}},
        vllm={"env": {"HF_HOME": "/models"}, "first_port": 9100},
    )
    (plan,) = vllm_plans(config, tmp_path, tmp_path / "data", {"HF_TOKEN": "hf_secret", "HF_HOME": "/elsewhere"})
    assert plan.spec.env == {
        "HF_TOKEN": "hf_secret",
        "HF_HOME": "/models",
        "VLLM_NO_USAGE_STATS": "1",
        "CUDA_VISIBLE_DEVICES": "3",
        "COE_ENGINE_OF": f"{tmp_path / 'data'}:{os.getpid()}",
    }
    assert plan.spec.secrets == ("hf_secret",)
    assert plan.spec.is_ready.args == ("http://127.0.0.1:9100/health",)
    assert (plan.spec.start_timeout_s, plan.url) == (1800.0, "http://127.0.0.1:9100/v1")


def test_secrets_are_known_by_their_names_and_long_enough() -> None:
    environment = {"OPENAI_API_KEY": "sk-12345", "db_password": "sk-12345-more", "TOKEN": "abc", "HOME": "/home/person"}
    assert secrets_of(environment) == ("sk-12345-more", "sk-12345")


def test_a_taken_port_names_the_engine_and_the_key(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = config_of({"a": {"engine": "vllm", "model": "m"}}, vllm={"first_port": port})
        plans = vllm_plans(config, tmp_path, tmp_path, {})
        with pytest.raises(EngineError, match=rf"^vllm-a cannot listen on port {port} .*vllm\.first_port$"):
            refuse_taken_ports(plans)
    refuse_taken_ports(plans)
