"""The main job from nothing: real experts, real Valkey, a measured map, real answers, as people run it."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
import yaml

from examples.smollm2 import ask
from tests.processes import descendants_of, is_running
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
EXPERTS = ("generalist", "calculator", "labeler")
PROBED = ("arithmetic", "classification", "chat", "facts", "general", "sql")
"""Of the shipped experts and categories, as many as the test has time to measure."""

DEADLINE_S = 500.0


@dataclass(frozen=True)
class Place:
    """A composition of its own: the shipped experts.yaml with fewer experts, few probes, an empty folder."""

    config: Path
    data: Path
    probes: Path

    def command(self, *more: str) -> list[str]:
        words = [sys.executable, "-m", "coe", "up", "--port", "0", "--config", str(self.config)]
        return [*words, "--data-dir", str(self.data), "--probes", str(self.probes), *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("coe")
    values = yaml.safe_load((ROOT / "experts.yaml").read_text())
    values["experts"] = {name: values["experts"][name] for name in EXPERTS}
    del values["plugins"]
    for entry in values["experts"].values():
        if "adapter" in entry:
            entry["adapter"] = str(ROOT / entry["adapter"])
    (folder / "experts.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "probes").mkdir()
    for category in PROBED:
        lines = (ROOT / "examples" / "smollm2" / "probes" / f"{category}.jsonl").read_text().splitlines()
        cheapest = min(lines, key=lambda line: json.loads(line)["max_tokens"])
        (folder / "probes" / f"{category}.jsonl").write_text(cheapest + "\n")
    return Place(folder / "experts.yaml", folder / "data", folder / "probes")


@pytest.fixture(scope="module")
def first_output(place: Place) -> str:
    """Output of the first start, which ends once the gateway is ready."""
    done = subprocess.run(place.command("--once"), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_start_measures_and_fits(place: Place, first_output: str) -> None:
    assert re.search(r"^curl http://127\.0\.0\.1:\d+/v1/chat/completions ", first_output, re.MULTILINE)
    assert "(18 answers were known already)" in first_output  # the demo ships them
    live = json.loads((place.data / "routers" / "live.json").read_text())
    assert (place.data / "routers" / live["version"] / "manifest.json").exists()


@dataclass(frozen=True)
class Running:
    """A started composition and the root of its API."""

    process: subprocess.Popen[str]
    url: str
    output: Path

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url.removesuffix("/v1") + path, timeout=DEADLINE_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def running(place: Place, first_output: str) -> Iterator[Running]:
    """A second start, which stays."""
    assert first_output
    output = place.data / "second.out"
    with output.open("w") as file:
        process = subprocess.Popen(place.command(), stdout=file, stderr=file, text=True)
    try:
        wait_until(lambda: "API" in output.read_text() or process.poll() is not None, "the address", DEADLINE_S)
        address = re.search(r"API +(http://\S+)", output.read_text())
        assert address is not None, output.read_text()
        yield Running(process, address.group(1), output)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)


def test_a_second_start_uses_what_the_first_one_learned(running: Running) -> None:
    output = running.output.read_text()
    assert "coe eval collect" not in output
    assert "coe train" not in output
    assert running.get("/readyz") == 200


def test_the_demo_asks_a_query_of_each_category(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    ask.main(running.url)
    table = {line[:20]: line[21:].split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert list(table) == [query[:20] for query in ask.QUERIES.values()]
    for category, confidence, took, unit, expert, *_ in table.values():
        assert category in ask.QUERIES
        assert 0 < float(confidence) <= 1
        assert expert.strip(",") in EXPERTS
        assert (took.isdecimal(), unit) == (True, "ms")
    right = [cells[0] == name for name, cells in zip(ask.QUERIES, table.values(), strict=True)]
    assert sum(right) >= 8


def test_the_openai_client_is_answered_and_the_decision_is_kept(place: Place, running: Running) -> None:
    asked = [{"role": "user", "content": "What is 23 + 19?"}]
    with openai.OpenAI(base_url=running.url, api_key="none", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(model="auto", messages=asked, max_tokens=16)
        assert raw.parse().choices[0].message.content
        assert raw.headers["x-coe-expert"] in EXPERTS
        assert raw.headers["x-coe-category"] == "arithmetic"
        assert 0 < float(raw.headers["x-coe-confidence"]) <= 1
        greedy = {"max_tokens": 16, "temperature": 0}
        stream = client.chat.completions.create(model="calculator", messages=asked, stream=True, **greedy)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "42" in "".join(pieces)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nobody", messages=asked)

    def row() -> tuple[str, str, str] | None:
        with sqlite3.connect(place.data / "coe.db") as database:
            query = "SELECT state, expert, category FROM decisions WHERE decision_id = ?"
            found: tuple[str, str, str] | None = database.execute(query, (raw.headers["x-coe-decision-id"],)).fetchone()
        return found

    wait_until(lambda: row() is not None, "the decision in SQL", DEADLINE_S)
    assert row() == ("answered", raw.headers["x-coe-expert"], "arithmetic")


def test_a_taken_port_is_one_clear_line(place: Place, running: Running) -> None:
    port = running.url.rsplit(":", 1)[1].removesuffix("/v1")
    done = subprocess.run(
        place.command("--port", port), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f":{port}" in done.stderr
    assert "--port" in done.stderr


def test_sigterm_ends_everything_with_status_0(running: Running) -> None:
    children = descendants_of(running.process.pid)
    assert len(children) >= 2  # the engine and Valkey
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(DEADLINE_S) == 0
    wait_until(lambda: not any(is_running(pid) for pid in children), "the end of the children", DEADLINE_S)
