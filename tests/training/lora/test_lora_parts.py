"""Examples and comparison of a training, and the way of an admitted expert into experts.yaml and into what runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from coe.base.errors import ConfigError, DataError, EngineError
from coe.base.journal import Journal
from coe.cli.command_line import command_of
from coe.decision_log.database import Database
from coe.decision_log.default_database import default_database_url
from coe.fleet.hosts.engine_plans import free_port
from coe.fleet.vllm.addresses import claim_vllm, read_vllm, write_vllm
from coe.fleet.vllm.command import read_adapter_ranks, vllm_processes
from coe.router.answers import comparing_kind
from coe.router.config.composition import CoeConfig, load_config, parse_config
from coe.router.config.expert import ExpertConfig
from coe.training.lora.admission import (
    Candidate,
    Comparison,
    adapted_entry,
    add_expert,
    add_to_engine,
    candidate_of,
    compare,
)
from coe.training.lora.examples import Example, logged_prompts, read_examples, split_examples
from coe.training.lora.lora_commands import admit
from coe.training.lora.lora_options import AdapterOptions
from coe.training.lora.serving import Taught, Teacher, ask_teacher, load_adapter
from tests.fake_vllm.interpreter import fake_interpreter
from tests.fleet.test_vllm_addresses import engine_record
from tests.training.log_records import record

ROOT = Path(__file__).parents[3]
ADAPTERS = ROOT / "examples" / "smollm2" / "adapters"
COMPOSITION = """\
# by hand
categories: {code: programs, general: the rest}
experts:
  base:
    engine: vllm   # ours
    model: m
    context_tokens: 2048

# what follows stays
router:
  encoder: {kind: hashing}
  classifier: {kind: logistic}
"""


def test_examples_of_other_categories_are_left_out_and_faults_name_their_row(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text('{"text": "a", "answer": "b"}\n{"text": "c", "answer": "d", "category": "sql"}\n')
    assert read_examples(file, "code") == [Example("a", "b")]
    file.write_text('{"text": "a", "answer": "b"}\n{"text": "c"}\n')
    with pytest.raises(DataError, match="row 2, field 'answer': is missing"):
        read_examples(file, "code")


def test_what_is_held_out_is_never_trained_on_and_too_few_are_refused() -> None:
    examples = [Example(f"question {n}", "yes") for n in range(200)]
    trained, held_out = split_examples([*examples, Example("QUESTION, 1!", "no")])
    assert len(trained) + len(held_out) == 200
    assert not set(trained) & set(held_out)
    with pytest.raises(DataError, match=r"20 different examples: .* needed: 16 and 12"):
        split_examples(examples[:20])


def test_queries_of_a_category_come_from_the_log_the_newest_first(tmp_path: Path) -> None:
    url = default_database_url(tmp_path)
    database = Database(url)
    rows = [record(n, text=text) for n, text in enumerate(["Add 1 and 2", "add 1 and 2!", "Add 3 and 4"])]
    rows += [record(7, "sql", text="Count the rows"), record(8, text="a probe", is_probe=True), record(9)]
    database.write_decisions(rows)
    database.close()
    assert logged_prompts(url, "code", 0.0, 9) == ["Add 3 and 4", "add 1 and 2!"]
    assert logged_prompts(url, "code", 0.0, 1) == ["Add 3 and 4"]
    with pytest.raises(DataError, match=r"keeps texts where log.privacy is text"):
        logged_prompts(url, "writing", 0.0, 9)


@pytest.mark.parametrize(
    ("gained", "lost", "is_better"), [(5, 0, False), (6, 0, True), (9, 2, False), (12, 2, True), (0, 0, False)]
)
def test_better_is_what_mcnemars_exact_test_calls_better(gained: int, lost: int, is_better: bool) -> None:
    found = Comparison(n=40, before=10, after=10 + gained - lost, gained=gained, lost=lost)
    assert found.is_better == is_better
    low, high = found.interval
    assert low <= found.difference <= high


def test_answers_are_the_same_by_their_key() -> None:
    found = compare(comparing_kind("number"), ["2+2", "3+3"], ["4", "6"], ["five", "7"], ["It is 4.0", "none"])
    assert (found.before, found.after, found.gained, found.lost) == (0, 1, 1, 0)


@pytest.mark.parametrize(("wanted", "given"), [(None, "It is spam."), ("number", "7.0")])
def test_answers_are_compared_as_experts_yaml_declares_or_as_a_person_says(
    wanted: str | None, given: str, tmp_path: Path
) -> None:
    file = tmp_path / "experts.yaml"
    file.write_text(f"{COMPOSITION}answers: {{code: {{kind: label, labels: [spam, ham]}}}}\n")
    found = candidate_of("judge", "code", file, tmp_path, AdapterOptions(answers=wanted), None)
    assert compare(found.answers, ["?"], ["spam" if wanted is None else "7"], [""], [given]).after == 1


@pytest.mark.parametrize("is_last", [False, True])
def test_an_expert_is_added_behind_the_others_and_the_rest_stays(is_last: bool, tmp_path: Path) -> None:
    file = tmp_path / "experts.yaml"
    before, _, after = COMPOSITION.partition("experts:\n")
    experts, rest = after.split("\n\n")
    text = f"{before}{rest}experts:\n{experts}" if is_last else COMPOSITION
    file.write_text(text)
    entry = adapted_entry(load_config(file).experts["base"], "poet", tmp_path / "lora" / "poet", tmp_path, "verse")
    add_expert(file, "poet", entry)
    changed = file.read_text()
    assert [line for line in text.splitlines() if line not in changed.splitlines()] == []
    config = load_config(file)
    assert list(config.experts) == ["base", "poet"]
    assert config.experts["poet"].adapter == "lora/poet"
    assert config.experts["poet"].context_tokens == 2048


def test_experts_in_braces_are_left_to_a_person(tmp_path: Path) -> None:
    file = tmp_path / "experts.yaml"
    values = parse_config(yaml.safe_load(COMPOSITION)).model_dump(mode="json", exclude_defaults=True)
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"not written as a block; add this by hand:\s+poet:"):
        add_expert(file, "poet", {"engine": "echo", "model": "m"})


def test_an_admitted_expert_goes_to_the_gateways_and_to_the_map(tmp_path: Path) -> None:
    file = tmp_path / "experts.yaml"
    file.write_text(COMPOSITION.replace("engine: vllm", "engine: llamacpp"))
    config, kind = load_config(file), comparing_kind("text")
    poet = Candidate("poet", "code", file, tmp_path, config, "base", kind, ADAPTERS / "labeler")
    options = AdapterOptions(probes_from=tmp_path, base_url="http://h/v1", promote=True)
    apply, probe = admit(poet, options)
    assert "poet" in load_config(file).experts
    assert command_of("config apply").make_context("", apply[2:]).params["config"] == file
    given = command_of("experts probe").make_context("", probe[2:]).params
    wanted = {"name": "poet", "categories": "code", "probes_from": tmp_path, "promote": True}
    assert {**given, **wanted, "data_dir": tmp_path, "base_url": "http://h/v1"} == given


async def test_a_teacher_is_asked_apart_from_traffic_and_once_for_each_query(tmp_path: Path) -> None:
    asked, broken = list[str](), {"c"}

    async def answer(request: web.Request) -> web.Response:
        assert (request.headers.get("x-coe-probe"), request.headers.get("authorization")) == ("1", "Bearer k")
        prompt = (await request.json())["messages"][0]["content"]
        asked.append(prompt)
        if prompt in broken:
            return web.json_response({"error": {"code": "x"}}, status=500)
        return web.json_response({"choices": [{"message": {"content": prompt.upper()}}]})

    journal = Journal(tmp_path / "out" / "answers.jsonl", Taught)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server:
        teacher = Teacher("loud", "one", str(server.make_url("/v1")), "k", 8)
        assert await ask_teacher(teacher, ["a", "b"], journal) == ["A", "B"]
        with pytest.raises(DataError, match="gives status 500 for model 'loud'"):
            await ask_teacher(teacher, ["a", "b", "c"], journal)
        broken.clear()
        assert await ask_teacher(teacher, ["a", "b", "c"], journal) == ["A", "B", "C"]
        assert sorted(asked) == ["a", "b", "c", "c"], "what is in the journal was paid for"
        assert await ask_teacher(replace(teacher, fingerprint="another"), ["a"], journal) == ["A"]
        assert await ask_teacher(replace(teacher, max_tokens=9), ["a"], journal) == ["A"]
        assert sorted(asked) == ["a", "a", "a", "b", "c", "c"], "another expert, or length, answers otherwise"
    assert await ask_teacher(teacher, ["c", "a"], journal) == ["C", "A"]
    with pytest.raises(DataError, match="cannot be asked"):
        await ask_teacher(teacher, ["d"], journal)


def fake_composition(python: str, environment: dict[str, str]) -> CoeConfig:
    base = {"engine": "vllm", "model": "m", "context_tokens": 512}
    return parse_config(
        {
            **yaml.safe_load(COMPOSITION),
            "experts": {"base": base, "calculator": {**base, "adapter": str(ADAPTERS / "calculator")}},
            "vllm": {"python": python, "first_port": free_port(), "env": environment},
        }
    )


@pytest.fixture
def engine_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A server that speaks as vLLM, with or without leave to load adapters."""
    environment = getattr(request, "param", {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"})
    config = fake_composition(fake_interpreter(tmp_path), environment)
    (process,) = vllm_processes(config, ROOT, read_adapter_ranks(config, ROOT))
    environment = {**os.environ, **process.env, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(process.argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:  # waits longer from try to try
            client.get(f"http://127.0.0.1:{process.port}/health")
        yield f"http://127.0.0.1:{process.port}/v1"
    finally:
        child.terminate()
        child.wait()


async def test_a_running_vllm_loads_an_adapter(engine_url: str, tmp_path: Path) -> None:
    entry = ExpertConfig(engine="vllm", model="m")
    await load_adapter(engine_url, entry, "labeler", ADAPTERS / "labeler")
    assert "labeler" in {each["id"] for each in httpx.get(f"{engine_url}/models").json()["data"]}
    with pytest.raises(EngineError, match="did not load the adapter"):
        await load_adapter(engine_url, entry, "nobody", Path("/nowhere"))
    lock = claim_vllm(tmp_path)
    write_vllm(tmp_path, [engine_record(name, engine_url) for name in ("base", "base", "other")])
    file = tmp_path / "experts.yaml"
    file.write_text(COMPOSITION.replace("model: m", "model: m\n    replicas: 2"))
    config, kind = load_config(file), comparing_kind("number")
    await add_to_engine(Candidate("poet", "code", file, tmp_path, config, "base", kind, ADAPTERS / "labeler"))
    assert "poet" in {each["id"] for each in httpx.get(f"{engine_url}/models").json()["data"]}
    assert read_vllm(tmp_path).urls["poet"] == (engine_url, engine_url)
    assert load_config(file).experts["poet"].replicas == 2
    lock.release()


@pytest.mark.parametrize("engine_url", [{}], indirect=True)
async def test_one_that_may_load_none_says_how_to_allow_it(engine_url: str) -> None:
    with pytest.raises(EngineError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
        await load_adapter(engine_url, ExpertConfig(engine="vllm", model="m"), "labeler", ADAPTERS / "labeler")
