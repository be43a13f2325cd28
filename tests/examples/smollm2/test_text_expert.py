"""The plugins of the demo as clients of experts: answers, streams, and what they leave to others."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import AbstainedError
from coe.eval.probe_set import load_probes
from coe.fleet.calls.backend import BackendRequest
from coe.router import plugins
from coe.router.capabilities import capabilities
from coe.router.config.composition import load_config
from examples.smollm2.experts import calculator, converter, refuse

ROOT = Path(__file__).parents[3]
SUM = [{"role": "user", "content": "12 * 11"}]
ANSWERS = {"arithmetic": calculator.Calculator().answer, "conversion": converter.made().answer}


async def answer(**fields: object) -> bytes:
    request = BackendRequest({"messages": SUM, **fields}, is_stream=bool(fields.get("stream")))
    response = await calculator.build(calculator.Options()).send(request)
    assert response.status == 200
    return b"".join([chunk async for chunk in response.chunks])


def test_experts_yaml_names_them() -> None:
    config = load_config(ROOT / "experts.yaml")
    assert {entry.model for entry in config.experts.values() if entry.engine == "plugin"} == {"calculator", "converter"}
    for kind in ("calculator", "converter"):
        assert plugins.load("fleet.providers", kind).build.__module__.startswith("coe_plugins_")
    assert [name for name, kind in capabilities(config).items() if kind.abstains] == ["sums", "units"]


async def test_an_answer_has_no_usage() -> None:
    completion = orjson.loads(await answer(temperature=0.7, max_tokens=5, n=None, tools=[], logprobs=False))
    assert completion["choices"][0]["message"]["content"] == "132"
    assert completion["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


async def test_a_stream_keeps_every_line_and_space() -> None:
    said = "def f():\n    return  1\n"
    response = await refuse.build(refuse.Options(sentence=said)).send(BackendRequest({"messages": SUM}, is_stream=True))
    events = [orjson.loads(line[6:]) for line in b"".join([c async for c in response.chunks]).split(b"\n\n")[:-2]]
    assert "".join(c["delta"].get("content", "") for event in events for c in event["choices"]) == said


async def test_a_stream_says_the_same() -> None:
    events = (await answer(stream=True, stream_options={"include_usage": True})).decode().split("\n\n")[:-1]
    values = [orjson.loads(event[6:]) for event in events[:-1]]
    assert events[-1] == "data: [DONE]"
    assert "".join(c["delta"].get("content", "") for v in values for c in v["choices"]) == "132"
    assert values[-1]["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "tell me a story"}]},
        {"messages": [{"role": "system", "content": "Answer in words."}, *SUM]},
        {"messages": [*SUM, {"role": "assistant", "content": "132"}, *SUM]},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"logprobs": True},
        {"stop": ["3"]},
        {"unheard_of": 1},
    ],
)
async def test_what_asks_for_more_than_the_answer_is_left_to_others(fields: dict[str, object]) -> None:
    with pytest.raises(AbstainedError, match=r"^calculator has no answer to this request$"):
        await answer(**fields)


@pytest.mark.parametrize("category", ANSWERS)
@given(text=st.text(max_size=300) | st.text(alphabet="0123456789+-*/().,%^ =x", max_size=300))
def test_any_text_gets_an_answer_or_none(category: str, text: str) -> None:
    found = ANSWERS[category](text)
    assert found is None or (found and len(found) < 400)


@pytest.mark.parametrize("category", ANSWERS)
def test_answers_on_the_shipped_probes_are_right_and_of_its_own_category(category: str) -> None:
    answers = [(probe, ANSWERS[category](probe.text)) for probe in load_probes()]
    given_ = [(probe, found) for probe, found in answers if found is not None]
    assert {probe.category for probe, _ in given_} == {category}
    assert [probe.text for probe, found in given_ if not probe.grader.build()(found)] == []
    assert len(given_) >= 15  # of 16
