"""Collecting over HTTP from a small endpoint whose experts answer right, wrong, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from coe.base.errors import ConfigError, DataError, RouterError
from coe.base.journal import Journal
from coe.eval.answers import Answer, token_counts
from coe.eval.collect import Collection, collect
from coe.eval.collect_command import load_request
from coe.eval.collect_request import CollectOptions, CollectRequest
from coe.eval.grading import cost_usd
from coe.eval.probe_set import GraderSpec, Probe
from coe.fleet.expert_fingerprint import expert_fingerprint
from coe.router.config.expert import Engine, ExpertConfig
from coe.router.prices.cost import Price
from coe.training.datasets.outcomes import read_outcomes
from coe.training.types import ModelFacts
from tests.waiting import until

KEY = "sk-of-a-test"
SUMS = {"1+1": 2, "2+3": 5, "4+4": 8}
PROBES = tuple(
    Probe.model_validate(
        {
            "id": f"arithmetic-{i:03}",
            "text": text,
            "category": "arithmetic",
            "grader": {"kind": "number", "value": value},
            "max_tokens": 8,
        }
    )
    for i, (text, value) in enumerate(SUMS.items())
)


@dataclass
class FakeExperts:
    """`right` answers every sum, `wrong` answers 99, `flaky` fails on 2+3 until it is mended, `broken` always fails,
    `restarting` is away the first two times."""

    root: str = ""
    is_mended: bool = False
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    bodies: list[dict[str, object]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    marks: set[str | None] = field(default_factory=set)

    def total(self, expert: str) -> int:
        return sum(count for (name, _), count in self.asked.items() if name == expert)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.add(request.headers.get("authorization"))
        self.marks.add(request.headers.get("x-coe-probe"))
        expert, text = body["model"], body["messages"][-1]["content"]
        self.asked[expert, text] += 1
        if expert == "unknown" or (expert == "warming" and self.total("warming") <= 2):
            error = {"code": "model_not_found", "message": f"no model\x1b[2J {expert}; your key is {KEY}"}
            return web.json_response({"error": error}, status=404)
        if expert == "locked":
            return web.json_response({"error": {"code": "invalid_api_key", "message": "who are you?"}}, status=401)
        if expert == "brittle" and self.asked[expert, text] > 0:
            request.transport.close()
        if expert == "too-long":
            return web.json_response({"error": {"code": "context_length_exceeded"}}, status=400)
        if expert == "ours":
            return web.json_response({"error": {"code": "server_shutting_down"}}, status=500)
        if expert == "broken" or (expert == "flaky" and text == "2+3" and not self.is_mended):
            return web.json_response({"error": {"code": "overloaded", "message": text}}, status=500)
        if expert == "restarting" and self.asked[expert, text] < 3:
            return web.json_response({"error": {"code": "no_expert_alive"}}, status=503, headers={"retry-after": "0"})
        if expert == "sums" and text != "1+1":
            return web.json_response({"error": {"code": "expert_abstained", "message": "abstains"}}, status=422)
        if expert == "gibberish":
            return web.Response(text="<html>")
        if expert == "silent":
            await asyncio.Event().wait()
        said = "99" if expert == "wrong" else str(SUMS[text.strip()])
        usage = {"prompt_tokens": 10, "completion_tokens": 2}
        return web.json_response({"choices": [{"message": {"content": said}}], "usage": usage})


@pytest.fixture
async def fake() -> AsyncIterator[FakeExperts]:
    experts = FakeExperts()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", experts.answer)
    async with TestServer(app) as server:
        experts.root = str(server.make_url("/v1"))
        yield experts


async def run(fake: FakeExperts, out: Path, *experts: str, **changes: object) -> Collection:
    request = CollectRequest(probes=PROBES, experts=experts, base_url=fake.root, out=out)
    return await collect(CollectRequest(**(vars(request) | changes)), show=lambda message: None)


@pytest.mark.parametrize("key", [None, "secret"])
async def test_a_gateways_log_is_told_that_probes_are_no_traffic(
    fake: FakeExperts, tmp_path: Path, key: str | None
) -> None:
    await run(fake, tmp_path, "right", api_key=key)
    assert fake.marks == {"1"}


async def test_answers_are_graded_into_a_table(fake: FakeExperts, tmp_path: Path) -> None:
    facts = {"right": ModelFacts(7.0, Price({"input": 1.0, "output": 5.0}))}
    await run(fake, tmp_path / "mine", "right", "wrong", facts=facts, api_key="k")
    table = read_outcomes(tmp_path / "mine")
    assert table.experts == ("right", "wrong")
    np.testing.assert_array_equal(table.scores, [[1, 0]] * 3)
    assert table.texts == tuple(SUMS)
    assert set(table.categories) == {"arithmetic"}
    np.testing.assert_array_equal(table.output_tokens, np.full((3, 2), 2))
    np.testing.assert_allclose(table.cost_usd[:, 0], (10 * 1.0 + 2 * 5.0) / 1e6)
    assert np.isnan(table.cost_usd[:, 1]).all()
    assert (table.latency_ms > 0).all()
    assert table.answers.tolist() == [[0, 1]] * 3  # numbers that differ
    assert table.active_params_b == {"right": 7.0}
    assert {(body["temperature"], body["max_tokens"]) for body in fake.bodies} == {(0, 8)}
    assert fake.keys == {"Bearer k"}


def test_a_cached_prompt_of_an_answer_costs_less() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 80}}
    answer = Answer.model_validate_json(
        Answer(key="k", probe_id="p", expert="e", **token_counts(usage)).model_dump_json()
    )
    facts = ModelFacts(price=Price({"input": 10.0, "output": 50.0, "cache_read": 1.0}))
    assert cost_usd(answer, facts) == pytest.approx((20 * 10 + 80 * 1 + 10 * 50) / 1e6)
    unknown = Answer(key="k", probe_id="p", expert="e", **token_counts({"prompt_tokens": 100}))
    assert cost_usd(unknown, facts) is None


async def test_a_failure_scores_0_with_its_latency_until_it_is_asked_again(fake: FakeExperts, tmp_path: Path) -> None:
    facts = {"flaky": ModelFacts(7.0, Price({"input": 1.0, "output": 5.0}))}
    first = await run(fake, tmp_path, "right", "flaky", facts=facts)
    assert (first.errors, first.failures) == ({}, {("flaky", "HTTP 500 (overloaded)"): 1})
    table = read_outcomes(tmp_path)
    np.testing.assert_array_equal(table.scores, [[1, 1], [0, 1], [1, 1]])
    assert table.experts == ("flaky", "right")
    assert (table.latency_ms > 0).all()
    assert table.cost_usd[1, 0] == 0
    fake.is_mended = True
    again = await run(fake, tmp_path, "right", "flaky")
    assert (again.n_reused, again.failures) == (6, first.failures)
    mended = await run(fake, tmp_path, "right", "flaky", options=CollectOptions(retry_failed=True))
    assert (mended.n_reused, mended.failures) == (5, {})
    assert read_outcomes(tmp_path).scores.all()
    assert fake.asked == {(e, t): 1 for e in ("right", "flaky") for t in SUMS} | {("flaky", "2+3"): 2}


@pytest.mark.parametrize(
    ("expert", "reason"),
    [
        ("gibberish", "the answer is not a chat completion"),
        ("silent", "no answer in time"),
        ("brittle", "connection lost (ServerDisconnectedError)"),
        ("too-long", "HTTP 400 (context_length_exceeded)"),
    ],
)
async def test_what_counts_as_a_failure(
    fake: FakeExperts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expert: str, reason: str
) -> None:
    monkeypatch.setattr("coe.eval.answers.RETRY_WAITS_S", (0.0,))
    found = await run(fake, tmp_path, "right", expert, options=CollectOptions(timeout_s=1.0))
    assert (found.failures, found.errors) == ({(expert, reason): 3}, {})
    assert found.table.scores[:, 1].tolist() == [0, 0, 0]


async def test_an_outage_of_ours_is_no_failure_and_asked_again(fake: FakeExperts, tmp_path: Path) -> None:
    found = await run(fake, tmp_path, "right", "ours")
    assert (found.failures, found.errors) == ({}, {("ours", "HTTP 500 (server_shutting_down)"): 3})
    assert read_outcomes(tmp_path).experts == ("right",)
    await run(fake, tmp_path, "right", "ours")
    assert fake.asked["ours", "1+1"] == 2


MANY = tuple(
    PROBES[0].model_copy(update={"id": f"arithmetic-{i:03}", "text": f"{text}{' ' * i}"})
    for i, text in enumerate(["1+1"] * 40)
)


async def test_an_expert_that_nobody_knows_is_given_up_after_eight_calls(fake: FakeExperts, tmp_path: Path) -> None:
    with pytest.raises(RouterError) as raised:
        await run(fake, tmp_path, "unknown", probes=MANY, api_key=KEY)
    said = str(raised.value)
    assert said == (
        f"unknown: stopped after 8 calls: {fake.root}/chat/completions gives HTTP 404 (model_not_found) for model "
        "'unknown': \"no model\\u001b[2J unknown; your key is ...\"; check --base-url, COE_API_KEY, the name, "
        "and that the model answers chats"
    )
    assert sum(fake.asked.values()) == 8


async def test_the_others_are_measured_all_the_same(fake: FakeExperts, tmp_path: Path) -> None:
    found = await run(fake, tmp_path, "unknown", "right", "locked", probes=MANY)
    assert [sentence.split(":")[0] for sentence in found.stopped] == ["unknown", "locked"]
    asked = Counter(expert for expert, _ in fake.asked.elements())
    assert asked == {"unknown": 8, "locked": 8, "right": 40}
    assert read_outcomes(tmp_path).experts == ("right",)


async def test_a_probe_that_is_left_to_others_scores_0_and_is_no_failure(fake: FakeExperts, tmp_path: Path) -> None:
    for _ in range(2):
        found = await run(fake, tmp_path, "sums")
    assert found.table.scores[:, 0].tolist() == [1, 0, 0]
    assert found.table.output_tokens[1:, 0].tolist() == [0, 0]
    assert (found.failures, found.errors, found.stopped) == ({}, {}, ())
    assert fake.asked["sums", "2+3"] == 1


async def test_one_that_fails_at_everything_is_given_up_later(fake: FakeExperts, tmp_path: Path) -> None:
    found = await run(fake, tmp_path, "broken", "right", probes=MANY)
    assert found.stopped == ("broken: stopped after 8 calls: it failed at all of them",)
    assert found.failures == {("broken", "HTTP 500 (overloaded)"): 8}
    assert np.isfinite(found.table.scores).sum(axis=0).tolist() == [8, 40]


async def test_one_answer_is_enough_to_go_on(fake: FakeExperts, tmp_path: Path) -> None:
    """Its model is still loading at first."""
    found = await run(fake, tmp_path, "warming", probes=MANY)
    assert (found.stopped, found.errors) == ((), {("warming", "HTTP 404 (model_not_found)"): 2})
    assert np.isfinite(found.table.scores).sum() == 38


async def test_an_expert_that_is_away_for_a_moment_is_waited_for(fake: FakeExperts, tmp_path: Path) -> None:
    found = await run(fake, tmp_path, "restarting")
    assert found.errors == {}
    assert np.isfinite(found.table.scores).all()
    assert set(fake.asked.values()) == {3}


async def test_one_answer_to_two_probes_is_graded_by_each(fake: FakeExperts, tmp_path: Path) -> None:
    other = GraderSpec.model_validate({"kind": "number", "value": 99})
    twin = PROBES[0].model_copy(update={"id": "arithmetic-009", "grader": other})
    found = await run(fake, tmp_path, "right", "wrong", probes=(PROBES[0], twin), fingerprints={"wrong": "w"})
    np.testing.assert_array_equal(found.table.scores, [[1, 0], [0, 1]])


async def test_a_changed_probe_is_asked_again(fake: FakeExperts, tmp_path: Path) -> None:
    await run(fake, tmp_path, "right")
    stricter = PROBES[0].model_copy(update={"max_tokens": 4})
    found = await run(fake, tmp_path, "right", probes=(stricter, *PROBES[1:]))
    assert found.n_reused == 2
    assert fake.asked["right", "1+1"] == 2


GIVEN = tuple(PROBES[0].model_copy(update={"id": f"arithmetic-{i:03}", "text": f"1+1{' ' * i}"}) for i in range(4))


@pytest.fixture
async def answers_file(fake: FakeExperts, tmp_path: Path) -> Path:
    """Answers of `right` and `wrong` on `GIVEN` that another machine wrote; nobody has been asked here yet."""
    await run(fake, tmp_path / "there", "right", "wrong", probes=GIVEN)
    fake.asked.clear()
    return tmp_path / "there" / "journal.jsonl"


async def test_answers_of_another_machine_are_graded_and_their_latency_is_unknown(
    fake: FakeExperts, tmp_path: Path, answers_file: Path
) -> None:
    given = tuple(Journal(answers_file, Answer).read())
    assert all(answer.latency_ms for answer in given)
    found = await run(fake, tmp_path / "here", "right", "wrong", probes=GIVEN, given=given)
    np.testing.assert_array_equal(found.table.scores, [[1, 0]] * len(GIVEN))
    assert (found.n_reused, sum(fake.asked.values())) == (2 * len(GIVEN), 0)
    assert np.isnan(found.table.latency_ms).all()
    again = await run(fake, tmp_path / "here", "right", "wrong", probes=GIVEN)
    assert (again.n_reused, sum(fake.asked.values())) == (2 * len(GIVEN), 0)


async def test_failures_on_another_machine_are_asked_here(fake: FakeExperts, tmp_path: Path) -> None:
    await run(fake, tmp_path / "there", "right", "flaky")
    fake.is_mended = True
    fake.asked.clear()
    given = tuple(Journal(tmp_path / "there" / "journal.jsonl", Answer).read())
    found = await run(fake, tmp_path / "here", "right", "flaky", given=given)
    assert (found.failures, fake.asked) == ({}, {("flaky", "2+3"): 1})


async def test_what_changed_since_is_asked_and_nothing_else(
    fake: FakeExperts, tmp_path: Path, answers_file: Path
) -> None:
    given = tuple(Journal(answers_file, Answer).read())
    await run(
        fake, tmp_path / "expert", "right", "wrong", probes=GIVEN, given=given, fingerprints={"right": "retrained"}
    )
    assert (fake.total("right"), fake.total("wrong")) == (len(GIVEN), 0)
    fake.asked.clear()
    probe = GIVEN[0].model_copy(update={"text": "2+3"})
    await run(fake, tmp_path / "probe", "right", probes=(probe, *GIVEN[1:]), given=given)
    assert fake.asked["right", "2+3"] == 1
    assert fake.total("right") == 1
    fake.asked.clear()
    await run(fake, tmp_path / "all", "right", probes=GIVEN, given=given, options=CollectOptions(again=True))
    assert fake.total("right") == len(GIVEN)


async def test_a_changed_grader_grades_known_answers_again(
    fake: FakeExperts, tmp_path: Path, answers_file: Path
) -> None:
    given = tuple(Journal(answers_file, Answer).read())
    await run(fake, tmp_path / "here", "right", probes=GIVEN, given=given)
    fake.asked.clear()
    other = GraderSpec.model_validate({"kind": "number", "value": 99})
    probes = tuple(probe.model_copy(update={"grader": other}) for probe in GIVEN)
    found = await run(fake, tmp_path / "here", "right", "wrong", probes=probes, given=given)
    np.testing.assert_array_equal(found.table.scores, [[0, 1]] * len(GIVEN))
    assert fake.total("right") == 0


def test_an_experts_fingerprint_is_what_decides_its_answers(tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(b"weights")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    (tmp_path / "lora" / "adapter_model.safetensors").write_bytes(b"adapter")
    entry = ExpertConfig(engine=Engine.LLAMACPP, model="base.gguf", adapter="lora")
    seen = [expert_fingerprint(entry, tmp_path)]
    assert expert_fingerprint(entry.model_copy(update={"description": "a word more"}), tmp_path) == seen[0]
    (tmp_path / "lora" / "adapter_model.safetensors").write_bytes(b"retrained")
    seen.append(expert_fingerprint(entry, tmp_path))
    seen.append(expert_fingerprint(entry.model_copy(update={"adapter": None}), tmp_path))
    (tmp_path / "other.gguf").write_bytes(b"other weights")
    seen.append(expert_fingerprint(entry.model_copy(update={"model": "other.gguf"}), tmp_path))
    seen.append(expert_fingerprint(entry.model_copy(update={"model": "not-here.gguf"}), tmp_path))
    assert len(set(seen)) == len(seen)


async def test_who_answered_before_stays_in_the_table(fake: FakeExperts, tmp_path: Path) -> None:
    """So that an expert can be added by asking it alone; those that experts.yaml knows no more go."""
    await run(fake, tmp_path, "right", "wrong")
    await run(fake, tmp_path, "mild", probes=PROBES[:2])
    table = read_outcomes(tmp_path, keep_partial=True)
    assert table.experts == ("mild", "right", "wrong")
    np.testing.assert_array_equal(table.scores[:, 1:], [[1, 0]] * 2)
    await run(fake, tmp_path, "mild", kept=frozenset({"mild", "right"}))
    assert read_outcomes(tmp_path).experts == ("mild", "right")
    assert {expert for expert, _ in fake.asked} == {"right", "wrong", "mild"}
    assert set(fake.asked.values()) == {1}
    with pytest.raises(RouterError, match="no expert answered any probe"):
        await run(fake, tmp_path, "broken")
    assert read_outcomes(tmp_path).experts == ("mild", "right")


async def test_an_interrupted_collection_keeps_what_was_answered_and_asks_the_rest(
    fake: FakeExperts, tmp_path: Path
) -> None:
    asking = asyncio.create_task(run(fake, tmp_path, "right", "silent"))
    journal = tmp_path / "journal.jsonl"
    await until(lambda: journal.exists() and len(journal.read_text().splitlines()) == 3, "the answers of one expert")
    asking.cancel()  # as Ctrl-C does
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (await run(fake, tmp_path, "right", "wrong")).n_reused == 3
    assert (fake.total("right"), fake.total("wrong")) == (3, 3)


async def test_a_line_cut_by_a_crash_is_dropped_and_a_damaged_one_is_named(fake: FakeExperts, tmp_path: Path) -> None:
    await run(fake, tmp_path, "right")
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert (await run(fake, tmp_path, "right")).n_reused == 2
    assert len(journal.read_text().splitlines()) == 3
    journal.write_text("{}\n" + journal.read_text())
    with pytest.raises(DataError, match=r"journal.jsonl:1: is not an answer"):
        await run(fake, tmp_path, "right")


async def test_nothing_answered_is_an_error_that_says_why(fake: FakeExperts, tmp_path: Path) -> None:
    with pytest.raises(RouterError, match=r"no expert answered any probe .* broken: HTTP 500 \(overloaded\), 3 times"):
        await run(fake, tmp_path, "broken")
    assert not (tmp_path / "scores.parquet").exists()
    with pytest.raises(RouterError, match="not a chat completion"):
        await run(fake, tmp_path, "gibberish")
    with pytest.raises(RouterError, match="no answer in time"):
        await run(fake, tmp_path, "silent", options=CollectOptions(timeout_s=0.2))


async def test_no_endpoint_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.eval.answers.RETRY_WAITS_S", (0.0,))
    with pytest.raises(RouterError, match="no connection"):
        await run(FakeExperts(root="http://127.0.0.1:1/v1"), tmp_path, "right")


async def test_one_at_a_time_goes_expert_by_expert(fake: FakeExperts, tmp_path: Path) -> None:
    seen: list[str] = []
    request = CollectRequest(
        probes=PROBES,
        experts=("right", "wrong"),
        base_url=fake.root,
        out=tmp_path,
        options=CollectOptions(concurrency=1),
    )
    await collect(request, show=seen.append)
    assert seen == [
        *(f"asking {expert}: {i} of 6 answers" for i, expert in enumerate(["right"] * 3 + ["wrong"] * 3, start=1)),
        *(f"grading: {i} of 6 answers" for i in range(1, 7)),
    ]


def test_inputs_are_checked(tmp_path: Path) -> None:
    url = "http://127.0.0.1:8000/v1"
    with pytest.raises(ConfigError, match="'localhost:8000' is not a URL"):
        load_request(None, None, ["a"], "localhost:8000", tmp_path)
    with pytest.raises(ConfigError, match="name the experts"):
        load_request(None, None, None, url, tmp_path)
    with pytest.raises(ConfigError, match="'a' is named 2 times"):
        load_request(None, None, ["a", "a"], url, tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_request(tmp_path / "none", None, ["a"], url, tmp_path)
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(probe.model_dump_json() for probe in PROBES))
    assert load_request(file, None, ["a"], url, tmp_path).probes == PROBES
    file.write_text(PROBES[0].model_dump_json() + "\n" + json.dumps({"id": "x"}))
    with pytest.raises(DataError, match=r"mine.jsonl: row 2"):
        load_request(file, None, ["a"], url, tmp_path)
    assert len({probe.category for probe in load_request(None, None, ["a"], url, tmp_path).probes}) >= 12


def test_experts_file_gives_names_and_refuses_others(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "experts.yaml"
    url = "http://127.0.0.1:8000/v1"
    found = load_request(None, file, None, url, tmp_path)
    assert "generalist" in found.experts
    assert found.facts["generalist"].active_params_b == pytest.approx(0.135)
    with pytest.raises(ConfigError, match="unknown expert 'generalst'; did you mean 'generalist'"):
        load_request(None, file, ["generalst"], url, tmp_path)
