"""The fake vLLM and the real one, side by side: every case asks both the same and expects the same of both.

The real one is vLLM's CPU build (slow). It refuses `--enable-sleep-mode`, but has its endpoints, which keep its states
and free no memory: what is freed is in tests/fleet/test_fake_vllm.py.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from coe.fleet.hosts.engine_plans import free_port
from coe.fleet.residency.fingerprints import is_same
from coe.fleet.residency.types import SLEEPS, Residency, SleepLevel
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.vllm.command import read_adapter_ranks, vllm_processes
from tests.fake_vllm.interpreter import fake_interpreter
from tests.small_composition import config_of
from tests.vllm_build import ENVIRONMENT, READY_S, ROOT, vllm_interpreter, write_base
from tests.waiting import wait_until

ADAPTERS = ROOT / "examples" / "smollm2" / "adapters"
DEV = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
CONTEXT_TOKENS = 512
SUCCESSES = "vllm:request_success_total"
HELLO = [{"role": "user", "content": "Say hello to everybody in the room"}]


@pytest.fixture(
    scope="module",
    params=["fake", pytest.param("real", marks=pytest.mark.slow)],
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A running server with a base, `generalist`, and an adapter on it, `calculator`, as `coe` starts them."""
    folder, is_real = tmp_path_factory.mktemp("vllm"), request.param == "real"
    python = vllm_interpreter() if is_real else fake_interpreter(folder)
    model = str(write_base(python, folder / "base")) if is_real else "base"
    engine = {"engine": "vllm", "model": model, "context_tokens": CONTEXT_TOKENS}
    args = {"dtype": "bfloat16", "enforce-eager": True, "max-num-seqs": 2, "enable-sleep-mode": not is_real}
    experts = {"generalist": engine, "calculator": {**engine, "adapter": str(ADAPTERS / "calculator")}}
    vllm = {"python": python, "args": args, "first_port": free_port(), "env": {**ENVIRONMENT, **DEV}}
    config = config_of(experts, vllm=vllm)
    (process,) = vllm_processes(config, ROOT, read_adapter_ranks(config, ROOT))
    environment = {**os.environ, **process.env, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(process.argv, env=environment, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{process.port}", timeout=60.0) as client:
                wait_until_ready(client, child, folder / "log")
                yield client
        finally:
            child.terminate()
            child.wait(60.0)


def wait_until_ready(client: httpx.Client, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert child.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.05)


def post(server: httpx.Client, path: str, **body: object) -> httpx.Response:
    return server.post(path, json=body)


def chat(server: httpx.Client, **fields: object) -> httpx.Response:
    body = {"model": "generalist", "messages": HELLO, "temperature": 0, "max_tokens": 3}
    return post(server, "/v1/chat/completions", **{**body, **fields})


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, type and parameter; the message differs in words."""
    error = response.json()["error"]
    assert error["message"]
    assert error["code"] == response.status_code
    return response.status_code, error["type"], error["param"]


def metric(server: httpx.Client, name: str, label: str = "") -> float:
    lines = server.get("/metrics").text.splitlines()
    (line,) = [each for each in lines if each.startswith(f"{name}{{") and label in each]
    return float(line.rsplit(" ", 1)[1])


def rises_to(server: httpx.Client, name: str, value: float) -> None:
    """Returns once a counter has that value: engines report a little after the answer."""
    wait_until(lambda: metric(server, name) >= value, name)


def test_models_are_the_base_and_its_adapter(server: httpx.Client) -> None:
    models = {model["id"]: model for model in server.get("/v1/models").json()["data"]}
    assert set(models) == {"generalist", "calculator"}
    assert [models[name]["parent"] for name in ("generalist", "calculator")] == [None, "generalist"]
    assert models["generalist"]["max_model_len"] == CONTEXT_TOKENS
    assert models["calculator"]["root"] == str(ADAPTERS / "calculator")
    assert server.get("/version").json()["version"].startswith("0.32.0")


@pytest.mark.parametrize("model", ["generalist", "calculator"])
def test_a_chat_ends_at_its_last_token_with_usage(server: httpx.Client, model: str) -> None:
    answer = chat(server, model=model, max_tokens=1).json()
    assert (answer["object"], answer["model"]) == ("chat.completion", model)
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    usage = answer["usage"]
    assert usage["completion_tokens"] == 1
    assert usage["total_tokens"] == usage["prompt_tokens"] + 1


def test_a_stream_has_a_role_pieces_the_reason_the_usage_and_an_end(server: httpx.Client) -> None:
    whole = chat(server).json()
    answer = chat(server, stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, end = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    first, *pieces, last = [orjson.loads(event) for event in events]
    assert end == "[DONE]"
    assert {each["object"] for each in (first, *pieces, last)} == {"chat.completion.chunk"}
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(piece["choices"][0]["delta"]["content"] for piece in pieces)
    assert text == whole["choices"][0]["message"]["content"]
    assert [piece["choices"][0]["finish_reason"] for piece in pieces] == [None, None, "length"]
    assert last["choices"] == []
    assert {name: last["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")} == {
        name: whole["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    }


def test_a_text_is_continued(server: httpx.Client) -> None:
    answer = post(server, "/v1/completions", model="generalist", prompt="Say hello", max_tokens=2, temperature=0).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"]
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 2)
    assert (
        "data: [DONE]"
        in server.post(
            "/v1/completions", json={"model": "generalist", "prompt": "Say hello", "max_tokens": 2, "stream": True}
        ).text
    )


REFUSED: list[tuple[dict[str, Any], tuple[int, str, str | None]]] = [
    ({"model": "nobody"}, (404, "NotFoundError", "model")),
    ({"max_tokens": 0}, (400, "BadRequestError", "max_tokens")),
    ({"max_tokens": 100_000}, (400, "BadRequestError", "max_tokens")),
]


@pytest.mark.parametrize(("fields", "expected"), REFUSED, ids=["model", "no tokens", "too many tokens"])
def test_what_is_wrong_is_refused(
    server: httpx.Client, fields: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    assert error_of(chat(server, **fields)) == expected


def test_a_body_that_is_not_right_is_refused(server: httpx.Client) -> None:
    no_messages = post(server, "/v1/chat/completions", model="generalist")
    assert error_of(no_messages) == (400, "Bad Request", "body.messages")
    broken = server.post("/v1/chat/completions", content=b"nonsense", headers={"content-type": "application/json"})
    assert error_of(broken) == (400, "Bad Request", "body.0")
    assert server.get("/nothing").status_code == 404


def test_tokens_of_a_chat_are_those_that_its_answer_counts(server: httpx.Client) -> None:
    cut = post(server, "/tokenize", model="generalist", messages=HELLO).json()
    assert cut["count"] == len(cut["tokens"]) == chat(server).json()["usage"]["prompt_tokens"]
    assert cut["max_model_len"] == CONTEXT_TOKENS
    text = post(server, "/tokenize", model="generalist", prompt="Say hello to all").json()
    assert text["count"] == len(text["tokens"]) == 4


def test_an_adapter_is_loaded_answers_and_is_unloaded(server: httpx.Client) -> None:
    path = str(ADAPTERS / "labeler")
    assert chat(server, model="labeler").status_code == 404
    load = {"lora_name": "labeler", "lora_path": path}
    assert "added successfully" in post(server, "/v1/load_lora_adapter", **load).text
    assert chat(server, model="labeler").json()["model"] == "labeler"
    assert error_of(post(server, "/v1/load_lora_adapter", **load)) == (400, "InvalidUserInput", None)
    assert post(server, "/v1/load_lora_adapter", **load, load_inplace=True).status_code == 200
    assert "removed successfully" in post(server, "/v1/unload_lora_adapter", lora_name="labeler").text
    assert error_of(post(server, "/v1/unload_lora_adapter", lora_name="labeler")) == (404, "NotFoundError", None)
    assert chat(server, model="labeler").status_code == 404
    nowhere = post(server, "/v1/load_lora_adapter", lora_name="x", lora_path="/nowhere")
    assert error_of(nowhere) == (404, "NotFoundError", None)
    assert error_of(post(server, "/v1/load_lora_adapter", lora_name="x")) == (400, "Bad Request", "body.lora_path")


def test_metrics_count_what_was_answered(server: httpx.Client) -> None:
    tokens, ended = metric(server, "vllm:generation_tokens_total"), metric(server, SUCCESSES, '"length"')
    chat(server)
    rises_to(server, "vllm:generation_tokens_total", tokens + 3)
    assert metric(server, SUCCESSES, '"length"') == ended + 1
    assert metric(server, "vllm:num_requests_running") == metric(server, "vllm:num_requests_waiting") == 0
    assert metric(server, "vllm:engine_sleep_state", '"awake"') == 1
    assert 0 <= metric(server, "vllm:kv_cache_usage_perc") <= 1


def test_a_second_prompt_that_begins_alike_hits_the_prefix_cache(server: httpx.Client) -> None:
    messages = [{"role": "user", "content": "one two three four five six seven eight nine ten " * 30}]
    queries, hits = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
    asked, found = metric(server, queries), metric(server, hits)
    size = chat(server, messages=messages).json()["usage"]["prompt_tokens"]
    chat(server, messages=messages)
    rises_to(server, queries, asked + 1.9 * size)
    assert found < metric(server, hits) < found + size
    assert server.post("/reset_prefix_cache").json() == {"success": True}
    found = metric(server, hits)
    chat(server, messages=messages)
    rises_to(server, queries, asked + 2.9 * size)
    assert metric(server, hits) == found


def test_level_0_pauses_and_a_wake_lets_what_waits_run(server: httpx.Client) -> None:
    assert server.get("/is_sleeping").json() == {"is_sleeping": False}
    assert server.post("/sleep?level=0&mode=wait").json() == {"status": "sleeping", "level": 0}
    assert server.get("/is_sleeping").json() == {"is_sleeping": True}
    with pytest.raises(httpx.ReadTimeout):
        server.post("/v1/chat/completions", json={"model": "generalist", "messages": HELLO}, timeout=0.5)
    assert server.post("/wake_up").json() == {"status": "awake", "tags": None}
    assert server.get("/is_sleeping").json() == {"is_sleeping": False}
    assert chat(server).status_code == 200


@pytest.mark.parametrize("level", [1, 2])
async def test_a_sleep_keeps_what_a_base_and_its_adapter_answer(server: httpx.Client, level: SleepLevel) -> None:
    actuator = VllmActuator(lambda: {"generalist": (f"{server.base_url}/v1".replace("//v1", "/v1"),)})
    try:
        ((_, before),) = (await actuator.examine("generalist")).items()
        await actuator.sleep("generalist", level)
        assert await actuator.state("generalist") is SLEEPS[level - 1]
        with pytest.raises(httpx.ReadTimeout):
            server.post("/v1/chat/completions", json={"model": "generalist", "messages": HELLO}, timeout=0.5)
        await actuator.wake("generalist")  # compares the answers
        assert await actuator.state("generalist") is Residency.AWAKE
    finally:
        await actuator.aclose()
    assert {"generalist", "calculator"} <= before.keys()
    assert {len(each) for each in before.values()} == {30}
    assert not is_same(before["generalist"], before["calculator"])
    assert chat(server).status_code == 200


def test_a_wrong_level_or_mode_is_refused(server: httpx.Client) -> None:
    assert error_of(server.post("/sleep?level=7")) == (400, "Bad Request", "query.level")
    assert error_of(server.post("/sleep?level=0&mode=none")) == (400, "Bad Request", "query.mode")
    assert server.post("/wake_up?tags=scheduling").json() == {"status": "awake", "tags": ["scheduling"]}
