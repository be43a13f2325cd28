"""Collecting on Ray gives what one process gives, to the byte. Ray runs on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coe.base.errors import BackendError
from coe.eval.ray_engine import WorkEngine, cores_of, spread
from coe.training.datasets.outcomes import read_outcomes
from tests.json_server import JsonHandler, answering

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
pytest.importorskip("ray", reason="ray is not installed (pip install 'composition-of-experts[ray]')")


class Answering(JsonHandler):
    """Answers a sum, wrongly where its first number is odd; a question without one is an error of the expert."""

    def do_POST(self) -> None:
        first, _, second = self.body()["messages"][-1]["content"].partition("+")
        value = int(first) + int(second) + int(first) % 2
        if value % 10 == 0:
            self.send_json({"error": {"code": "overloaded", "message": "no"}}, 500)
            return
        choices = [{"message": {"content": f"It is {value}."}}]
        self.send_json({"choices": choices, "usage": {"completion_tokens": 4}})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with answering(Answering) as found:
        yield f"{found}/v1"


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("probes") / "sums.jsonl"
    lines = [
        {
            "id": f"arithmetic-{n:03}",
            "text": f"{n} + {n % 7}",
            "category": "arithmetic",
            "grader": {"kind": "number", "value": n + n % 7},
            "max_tokens": 8,
        }
        for n in range(300)
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


def collected(out: Path, url: str, probes: Path, *more: str) -> None:
    command = [sys.executable, "-m", "coe", "eval", "collect", "--out", str(out), "--base-url", url]
    command += ["--experts", "adder,other", "--probes", str(probes), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_ray_grades_is_what_one_process_does_to_the_byte(url: str, probes: Path, tmp_path: Path) -> None:
    plain, ray, again = (tmp_path / name / "table" for name in ("plain", "ray", "again"))  # its name is in the table
    collected(plain, url, probes)
    collected(ray, url, probes, "--engine", "ray")
    np.testing.assert_array_equal(read_outcomes(plain).scores, read_outcomes(ray).scores)
    again.mkdir(parents=True)
    shutil.copy(ray / "journal.jsonl", again)  # with its latencies, which no two runs share
    collected(again, url, probes)
    files = sorted(file.name for file in ray.iterdir())
    assert len(files) > 2
    assert {name: (again / name).read_bytes() for name in files} == {name: (ray / name).read_bytes() for name in files}


def refuse(part: int) -> int:
    raise BackendError(f"part {part}", is_retryable=True)


def test_an_error_is_that_of_the_part() -> None:
    with cores_of(WorkEngine.RAY) as cores, pytest.raises(BackendError, match="part 0"):
        list(spread(refuse, range(3), cores))
