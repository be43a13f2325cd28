"""vLLM itself, its CPU build: a base and an adapter in one process, and another model in a second one, started by
`coe experts up`, asked as the gateway asks."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from pathlib import Path

import aiohttp
import orjson
import pytest

from coe.cli.terminal import Terminal
from coe.fleet.calls.backend import BackendRequest, ChatBackend
from coe.fleet.calls.connect import build_backends
from coe.fleet.encoders import openai
from coe.fleet.hosts.engine_plans import free_port
from coe.fleet.hosts.experts_up import engine_lines, run_experts
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.vllm.addresses import read_vllm
from coe.fleet.vllm.command import DEV_ENV
from coe.fleet.vllm.desired_state import DesiredProcesses
from coe.router.config.composition import CoeConfig, parse_config
from tests.small_composition import composition_of
from tests.vllm_build import ENVIRONMENT, ROOT, vllm_interpreter, write_base, write_small

ADAPTER = ROOT / "examples" / "smollm2" / "adapters" / "calculator"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def vllm_python() -> str:
    return vllm_interpreter()


@pytest.fixture(scope="module")
def base_model(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(vllm_python, tmp_path_factory.mktemp("base"))


def config_of(python: str, base: Path, small: Path) -> CoeConfig:
    model = {"engine": "vllm", "model": str(base), "context_tokens": 1024}
    experts = {
        "generalist": model,
        "calculator": {**model, "adapter": str(ADAPTER)},
        "small": {**model, "model": str(small)},
    }
    vllm = {
        "python": python,
        "first_port": free_port(2),
        "args": {"dtype": "bfloat16", "enforce-eager": True, "max-num-seqs": 4},
        "env": ENVIRONMENT | DEV_ENV,
    }
    return parse_config(composition_of(experts, vllm=vllm))


async def answer_of(backend: ChatBackend, text: str) -> str:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 12, "temperature": 0}
    response = await backend.send(BackendRequest(body))
    raw = b"".join([chunk async for chunk in response.chunks])
    assert response.status == 200, raw
    return str(orjson.loads(raw)["choices"][0]["message"]["content"])


async def test_two_models_and_an_adapter_are_served_by_two_processes_and_differ(
    vllm_python: str, base_model: Path, tmp_path: Path
) -> None:
    small = await asyncio.to_thread(write_small, vllm_python, base_model, tmp_path / "small")
    config = config_of(vllm_python, base_model, small)
    out = io.StringIO()
    run = asyncio.create_task(run_experts(config, ROOT, tmp_path, dict(os.environ), Terminal(file=out)))
    while not (run.done() or read_vllm(tmp_path).urls):
        await asyncio.sleep(0.5)  # ends by the engine's own deadline
    if run.done():
        await run
    urls = read_vllm(tmp_path).urls
    assert urls["generalist"] == urls["calculator"] != urls["small"]
    lines = await engine_lines(tmp_path)
    assert [line.split(",")[0] for line in lines] == ["vllm-generalist: awake", "vllm-small: awake"]
    backends = build_backends(config, urls, {}, {})
    actuator = VllmActuator(lambda: urls, DesiredProcesses(tmp_path))
    try:
        assert all([await backend.is_alive() for backend in backends.values()])
        sums = {"17 + 25": "42", "36 + 47": "83", "90 - 36": "54"}
        adapted = [await answer_of(backends["calculator"], text) for text in sums]
        plain = [await answer_of(backends["generalist"], text) for text in sums]
        assert sum(result in answer for result, answer in zip(sums.values(), adapted, strict=True)) >= 2
        assert adapted != plain
        assert await answer_of(backends["small"], "17 + 25") != plain[0]
        assert read_vllm(tmp_path).engines_of("calculator")[0].fingerprint.keys() == {"generalist", "calculator"}
        for level in (1, 2):
            await actuator.sleep("generalist", level)
            await actuator.wake("generalist")  # compares the answers with those before the first sleep
            assert [await answer_of(backends["calculator"], text) for text in sums] == adapted
    finally:
        await asyncio.gather(actuator.aclose(), *(backend.aclose() for backend in backends.values()))
        os.kill(os.getpid(), signal.SIGTERM)
        await run
    assert read_vllm(tmp_path).urls == {}
    assert "vllm-generalist: ready" in out.getvalue()


async def test_a_pooling_engine_embeds_sleeps_and_wakes_and_chats_with_nobody(
    vllm_python: str, base_model: Path, tmp_path: Path
) -> None:
    small = await asyncio.to_thread(write_small, vllm_python, base_model, tmp_path / "small")
    engine = {"engine": "vllm", "model": str(small), "context_tokens": 64}
    retrieval = {"encoder": {"kind": "openai", "engine": "small", "dim": 576, "truncates": True}}
    values = config_of(vllm_python, base_model, small).model_dump(mode="json") | {
        "experts": {"elsewhere": {"engine": "openai", "model": "m", "url": "http://127.0.0.1:9/v1"}},
        "retrieval": retrieval | {"engines": {"small": engine}},
    }
    config = parse_config(values)
    run = asyncio.create_task(run_experts(config, ROOT, tmp_path, dict(os.environ), Terminal(file=io.StringIO())))
    while not (run.done() or read_vllm(tmp_path).urls):
        await asyncio.sleep(0.5)  # ends by the engine's own deadline
    if run.done():
        await run
    (root,) = read_vllm(tmp_path).urls["small"]
    encoder = openai.build(openai.Options.model_validate(config.retrieval.encoder.options))
    actuator = VllmActuator(lambda: {"small": (root,)}, DesiredProcesses(tmp_path))
    texts = ["The capital of France is Paris.", "a stock index", "word " * 500, "The capital of France is Paris."]
    try:
        before = await asyncio.to_thread(encoder.encode, texts)
        assert before[0] @ before[3] > 0.999 > before[0] @ before[1]
        for level in (1, 2):
            await actuator.sleep("small", level)
            await actuator.wake("small")
            after = await asyncio.to_thread(encoder.encode, texts)
            assert (before * after).sum(axis=1).min() > 0.999
        async with aiohttp.ClientSession() as session:
            body = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
            async with session.post(f"{root}/chat/completions", json=body) as answer:
                assert answer.status == 404, await answer.text()
    finally:
        await actuator.aclose()
        os.kill(os.getpid(), signal.SIGTERM)
        await run
