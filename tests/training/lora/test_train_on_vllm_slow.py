"""An expert learned from the log, with vLLM's CPU build: trained, admitted, loaded into the running engine, put on the
map and routed to, while neither engine nor gateway is started again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import yaml

from benchmarks.chaos_fleet import Child, GatewayProcess, serving
from coe.fleet.hosts.engine_plans import free_port
from coe.fleet.router_registry import Registry
from coe.fleet.vllm.addresses import read_vllm
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.fit_inputs import TrainRequest, fit_configured
from tests.json_server import JsonHandler, answering
from tests.training.trained_folder import NOW, outcome_table
from tests.vllm_build import ENVIRONMENT, vllm_interpreter, write_base

TEAMS = {"printer": "amber", "scanner": "amber", "invoice": "cobalt", "refund": "cobalt"}
ASKED, PROBES = 90, 40

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(find_spec("peft") is None, reason="needs the extra `adapters`"),
]


def questions(count: int, seed: int) -> dict[str, str]:
    """Questions with their answers, which no base model can know."""
    rng = random.Random(seed)
    drawn = {(rng.choice(list(TEAMS)), rng.randint(100, 999)) for _ in range(2 * count)}
    return {f"The {thing} of room {room}: which team?": TEAMS[thing] for thing, room in sorted(drawn)[:count]}


class Teacher(JsonHandler):
    """An expensive expert that knows the teams."""

    def do_POST(self) -> None:
        body = self.body()
        thing = body["messages"][-1]["content"].split()[1]
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        message = {"role": "assistant", "content": TEAMS[thing]}
        answer = {"id": "a", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage}
        self.send_json(answer | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def do_GET(self) -> None:
        self.send_json({"object": "list", "data": [{"id": "teacher", "object": "model"}]})


@pytest.fixture
def teacher_url() -> Iterator[str]:
    with answering(Teacher) as url:
        yield f"{url}/v1"


def composition(folder: Path, teacher_url: str) -> Path:
    """experts.yaml with a base on vLLM that has no adapter, and a router by which the teacher answers about teams."""
    python = vllm_interpreter()
    base = write_base(sys.executable, folder / "base")
    vllm = {
        "python": python,
        "first_port": free_port(),
        "args": {"dtype": "bfloat16", "enforce-eager": True, "max-num-seqs": 4},
        "env": ENVIRONMENT | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"},
    }
    values = {
        "categories": {"teams": "who is responsible for what", "sql": "writing SQL", "general": "the rest"},
        "examples": {"teams": list(questions(30, seed=1))},
        "experts": {
            "generalist": {"engine": "vllm", "model": str(base), "context_tokens": 512},
            "teacher": {"engine": "vllm", "model": "teacher", "url": teacher_url},
        },
        "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}, "alpha": 0.5},
        "log": {"privacy": "text", "durability": "sync"},
        "vllm": vllm,
    }
    file = folder / "experts.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    prompts = [("teams", number) for number in range(PROBES)] + [("sql", number) for number in range(PROBES)]
    scores = np.array([[0.0, float(number % 5 < 3)] for _, number in prompts])
    write_outcomes(outcome_table(prompts, ("generalist", "teacher"), scores), folder / "data" / "outcomes" / "probes")
    registry = Registry(folder / "data" / "routers")
    made = fit_configured(registry.root, TrainRequest(file, folder / "data" / "outcomes" / "probes"), now=NOW)
    registry.promote(made.manifest.version, NOW)
    return file


def write_probes(file: Path) -> Path:
    """Graded questions that are in no log."""
    lines = [
        {"id": f"teams-{number:03}", "category": "teams", "text": text, "max_tokens": 4}
        | {"grader": {"kind": "text", "accepted": [team], "first_line": True}}
        for number, (text, team) in enumerate(questions(PROBES, seed=2).items())
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


async def asked(client: aiohttp.ClientSession, gateway: GatewayProcess, text: str) -> tuple[str, str]:
    """The expert that answers, and its answer."""
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0}
    async with client.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        said = (await answer.json())["choices"][0]["message"]["content"]
        return answer.headers["x-coe-expert"], said.strip()


async def test_an_expert_is_learned_from_the_log_and_routed_to_without_a_restart(
    tmp_path: Path, teacher_url: str
) -> None:
    file, data = await asyncio.to_thread(composition, tmp_path, teacher_url), tmp_path / "data"
    probes = write_probes(tmp_path / "teams.jsonl")
    places = ["--config", str(file), "--data-dir", str(data)]
    engines = Child(["experts", "up", *places], {}, tmp_path / "engines.log")
    gateway = GatewayProcess(file, data, {"REDIS_URL": "", "DATABASE_URL": ""}, tmp_path / "gateway.log")
    engines.start()
    try:
        while engines.is_running and "generalist" not in read_vllm(data).urls:
            await asyncio.sleep(0.5)  # ends by the engine's own deadline
        assert engines.is_running, engines.log.read_text()[-2000:]
        engine_url = read_vllm(data).urls["generalist"][0]
        async with serving(gateway) as client:
            for text, team in questions(ASKED, seed=3).items():
                assert await asked(client, gateway, text) == ("teacher", team)
            command = ["experts", "train-lora", "specialist", "--category", "teams", "--on", "generalist"]
            command += ["--teacher", "teacher", "--steps", "24", "--max-tokens", "4", "--probes-from", str(probes)]
            command += ["--promote", "--base-url", f"{gateway.url}/v1", *places]
            run = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "coe", *command),
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},  # threads that spin starve each other
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said = (await run.communicate())[0].decode()
            assert run.returncode == 0, said[-3000:]
            assert "specialist takes teams" in said
            new = list(questions(8, seed=4).items())
            while (await asked(client, gateway, new[0][0]))[0] != "specialist":  # within two seconds
                await asyncio.sleep(0.1)
            answers = [await asked(client, gateway, text) for text, _ in new]
            assert {expert for expert, _ in answers} == {"specialist"}
            assert sum(answer == team for (_, answer), (_, team) in zip(answers, new, strict=True)) >= 7
            async with client.get(f"{engine_url.removesuffix('/v1')}/metrics") as metrics:
                # What the rendered ScaledObject asks for.
                assert re.search(r'^vllm:num_requests_waiting{.*model_name="generalist"', await metrics.text(), re.M)
        assert engines.is_running
        assert engines.log.read_text().count("ready") == 1
    finally:
        await engines.stop()
