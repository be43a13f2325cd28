"""The part of the gateway's environment that engines inherit: none of its secrets."""

from __future__ import annotations

import sys

import pytest

from coe.fleet.processes.process import ProcessSpec, SupervisedProcess
from coe.gateway.settings import engine_environment, secret_variables, without_secrets
from coe.router.config.composition import CoeConfig
from tests.small_composition import config_of

SECRET = {
    "COE_API_KEYS": "one,two",
    "COE_API_KEY": "one",
    "REDIS_URL": "redis://:secret@redis/0",
    "DATABASE_URL": "postgresql://coe:secret@db/coe",
    "PROVIDER": "named-in-the-file",
    "ANTHROPIC_API_KEY": "a",
    "PGPASSWORD": "b",
    "AWS_SECRET_ACCESS_KEY": "c",
    "GITHUB_TOKEN": "d",
    "GOOGLE_APPLICATION_CREDENTIALS": "/e.json",
    "my_openai_apikey": "f",
    "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20g",
}
KEPT = {
    "PATH": "/usr/bin",
    "CUDA_VISIBLE_DEVICES": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HOME": "/models",
    "HF_TOKEN": "of-the-hub",
    "VLLM_API_KEY": "of-the-engine",
    "HTTPS_PROXY": "http://proxy:3128",
    "KEYBOARD": "us",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
}


@pytest.fixture
def config() -> CoeConfig:
    far = {"engine": "openai", "model": "m", "url": "http://127.0.0.1:9/v1", "api_key_env": "PROVIDER"}
    return config_of({"far": far})


def test_what_is_ours_is_left_out_and_what_engines_need_is_kept(config: CoeConfig) -> None:
    assert without_secrets(SECRET | KEPT, {"PROVIDER"}) == KEPT


async def test_an_engine_process_sees_no_secret(config: CoeConfig, monkeypatch, tmp_path) -> None:
    for name, value in (SECRET | KEPT).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    seen = tmp_path / "seen"
    code = f"import os, pathlib, time; pathlib.Path({str(seen)!r}).write_text(repr(dict(os.environ))); time.sleep(600)"

    async def is_seen() -> bool:
        return seen.exists()

    spec = ProcessSpec(
        name="engine",
        argv=(sys.executable, "-c", code),
        log=tmp_path / "engine.log",
        is_ready=is_seen,
        env=engine_environment(config),
    )
    process = SupervisedProcess(spec)
    process.start()
    await process.wait_ready()
    await process.stop()
    environment = seen.read_text()
    assert "HF_TOKEN" in environment
    assert [name for name in SECRET if f"'{name}'" in environment] == []


def test_secrets_are_those_of_experts_of_every_plugin_and_of_the_index() -> None:
    def far(key: str) -> dict[str, object]:
        return {"model": "m", "url": "http://127.0.0.1:9/v1", "api_key_env": key}

    parts = [{"kind": "openai", "options": far("OF_PART") | {"dim": 2}}]
    config = config_of(
        {"far": far("OF_EXPERT") | {"engine": "openai"}},
        router={"encoder": {"kind": "concat", "parts": parts}, "classifier": {"kind": "logistic"}},
        retrieval={
            "encoder": far("OF_DOCUMENTS") | {"kind": "openai", "dim": 2},
            "experts": {"words": {"kind": "bm25"}, "far": far("OF_SEARCH") | {"kind": "openai", "dim": 2}},
            "pgvector_url_env": "OF_INDEX",
        },
    )
    assert secret_variables(config) == ["OF_DOCUMENTS", "OF_EXPERT", "OF_INDEX", "OF_PART", "OF_SEARCH"]
