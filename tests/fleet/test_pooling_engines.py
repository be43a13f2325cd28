"""Engines of embeddings and relevance: how experts.yaml names them, how they start, and who wakes them."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coe.base.errors import ConfigError
from coe.cli.terminal import Terminal
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.encoders import openai
from coe.fleet.hosts.engine_plans import free_port
from coe.fleet.hosts.experts_up import run_experts
from coe.fleet.residency.controller import Controller
from coe.fleet.residency.memory import Memory
from coe.fleet.residency.scheduler import ResidencyPolicy, Scheduler
from coe.fleet.residency.types import Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.vllm.addresses import read_vllm
from coe.fleet.vllm.command import vllm_processes
from coe.gateway.settings import secret_variables
from coe.retrieval.reranker import Reranker
from coe.router.config.composition import CoeConfig
from coe.router.config.residency import ResidencyConfig
from tests.fake_vllm.command import FakeOptions
from tests.fake_vllm.engine import FakeEngine
from tests.fake_vllm.interpreter import fake_interpreter
from tests.fake_vllm.server import DIM, FakeServer
from tests.fleet.residency.driver import resident
from tests.served_app import serving
from tests.small_composition import config_of
from tests.waiting import until

BGE = {"engine": "vllm", "model": "bge"}
DEV: dict[str, Any] = {"is_dev": True, "enable_sleep_mode": True}
CHAT = {"llama": {"engine": "vllm", "model": "llama", "context_tokens": 4096}}


def composition(engines: dict[str, Any], vllm: dict[str, Any] | None = None, **retrieval: Any) -> CoeConfig:
    encoder = {"kind": "openai", "engine": "bge", "dim": DIM}
    section = {"encoder": encoder, "engines": engines, **retrieval}
    return config_of(CHAT, retrieval=section, vllm={"first_port": 8200, **(vllm or {})})


def test_each_use_of_an_engine_gets_its_address_name_and_key() -> None:
    engines = {
        "bge": BGE,
        "cross": {**BGE, "model": "rerank", "url": "http://10.0.0.7:8000/v1", "api_key_env": "CROSS_KEY"},
    }
    experts = {
        "words": {"kind": "bm25"},
        "same": {"kind": "encoder", "encoder": "openai", "options": {"engine": "bge", "dim": 3}},
    }
    config = composition(engines, experts=experts, reranker={"engine": "cross"})
    retrieval = config.retrieval
    at = {"url": "http://127.0.0.1:8200/v1", "model": "bge"}
    assert retrieval.encoder.options == {**at, "dim": DIM}
    assert retrieval.experts["same"].options["options"] == {**at, "dim": 3}
    reranker = retrieval.reranker
    assert (reranker.url, reranker.model, reranker.api_key_env) == ("http://10.0.0.7:8000/v1", "rerank", "CROSS_KEY")
    assert secret_variables(config) == ["CROSS_KEY"]
    bge, llama = vllm_processes(config, Path("/"), {})
    assert (bge.name, bge.port, bge.flags) == ("vllm-bge", 8200, {"runner": "pooling"})
    assert (llama.port, llama.flags["max-model-len"]) == (8201, 4096)


def test_a_key_of_a_reranker_is_among_the_secrets() -> None:
    reranker = {"url": "http://10.0.0.7/v1", "model": "cross", "api_key_env": "CROSS_KEY"}
    assert secret_variables(composition({"bge": BGE}, reranker=reranker)) == ["CROSS_KEY"]


@pytest.mark.parametrize(
    ("engines", "more", "complaint"),
    [
        ({"bge": {**BGE, "engine": "openai"}}, {}, "retrieval.engines.bge: engine: 'openai'; allowed: vllm"),
        ({"bge": {**BGE, "adapter": "x"}}, {}, "retrieval.engines.bge: adapter: a pooling engine takes none; allowed:"),
        ({"bge": {**BGE, "engine_args": {"runner": "generate"}}}, {}, "'generate'; allowed: pooling"),
        ({"bge": {**BGE, "url": ["http://a/v1", "http://b/v1"]}}, {}, "2 addresses; allowed: one"),
        ({"bge": BGE, "llama": BGE}, {}, "retrieval.engines.llama: is the name of an expert"),
        ({"beg": BGE}, {}, "retrieval.encoder.engine: 'bge' is none of `engines`; did you mean 'beg'"),
        ({"bge": BGE}, {"reranker": {"engine": "cross"}}, "retrieval.reranker.engine: 'cross' is none of `engines`"),
        ({"bge": BGE}, {"reranker": {"model": "cross"}}, "retrieval.reranker: needs `engine`, or `url` and `model`"),
    ],
)
def test_what_is_no_pooling_engine_is_refused_by_its_key(
    engines: dict[str, Any], more: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        composition(engines, **more)
    assert complaint in str(error.value)


async def test_engines_start_beside_those_of_experts_and_refuse_what_vllm_refuses(tmp_path: Path) -> None:
    engines = {"bge": {**BGE, "context_tokens": 8}, "cross": {**BGE, "model": "some-reranker"}}
    vllm = {"python": fake_interpreter(tmp_path), "first_port": free_port(3)}
    config = composition(engines, vllm, reranker={"engine": "cross"})
    out = io.StringIO()
    run = asyncio.create_task(run_experts(config, tmp_path, tmp_path, dict(os.environ), Terminal(file=out)))
    try:
        await until(lambda: run.done() or bool(read_vllm(tmp_path).urls), "the engines")
        assert read_vllm(tmp_path).urls.keys() == {"bge", "cross", "llama"}
        options = openai.Options.model_validate(config.retrieval.encoder.options | {"truncates": True})
        encoder = openai.build(options)
        vectors = await asyncio.to_thread(encoder.encode, ["a b", "b a", "c", "long " * 100])
        assert np.allclose(vectors[0], vectors[1])
        assert not np.allclose(vectors[0], vectors[2])
        reranker = Reranker(config.retrieval.reranker, {})
        scores = await asyncio.to_thread(reranker.scores, "red fox", ["a hen", "a red fox"])
        assert scores.argmax() == 1
    finally:
        if not run.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await run


@asynccontextmanager
async def two_engines_of_which_one_fits() -> AsyncIterator[tuple[str, VllmActuator, Controller]]:
    """A pooling engine that sleeps, and a language model that is awake; the first one's API root."""
    wanted, names = ResidencyConfig(memory_gb=21.5), ("bge", "llama")
    async with asyncio.timeout(60):
        bge = FakeEngine(FakeOptions(model="bge", served_model_name=("bge",), is_pooling=True, **DEV))
        llama = FakeEngine(FakeOptions(model="llama", served_model_name=("llama",), **DEV))
        await asyncio.gather(bge.start(), llama.start())
        async with serving(FakeServer(bge).app()) as first, serving(FakeServer(llama).app()) as second:
            urls = {"bge": (f"{first}/v1",), "llama": (f"{second}/v1",)}
            actuator = VllmActuator(lambda: urls)
            await actuator.sleep("bge", 1)
            states = {"bge": Residency.SLEEP_1, "llama": Residency.AWAKE}
            scheduler = Scheduler(tuple(map(resident, names)), Memory({"0": 21.5}), ResidencyPolicy(), states)
            controller = Controller(scheduler, actuator, wanted, pooling={urls["bge"][0]: "bge"})
            yield urls["bge"][0], actuator, controller


async def test_texts_wake_their_engine_while_nobody_needs_the_other_one() -> None:
    async with two_engines_of_which_one_fits() as (root, actuator, controller):
        encoder = openai.build(openai.Options(url=root, model="bge", dim=DIM))
        controller.start(ExpertPool({}))
        try:
            vectors = await asyncio.gather(*(asyncio.to_thread(encoder.encode, [text]) for text in ("a", "b", "a")))
            assert np.allclose(vectors[0], vectors[2])
            assert [await actuator.state(name) for name in ("bge", "llama")] != [Residency.AWAKE, Residency.AWAKE]
            assert await actuator.state("bge") is Residency.AWAKE
        finally:
            await controller.aclose()
