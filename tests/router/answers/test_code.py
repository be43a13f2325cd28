from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.base.sandbox.runner import SandboxOutcome
from coe.router.answers import code
from coe.router.answers.code import Options
from tests.router.answers.grading import grader
from tests.waiting import DEADLINE_S

ADD = Options(tests="assert add(2, 3) == 5\nassert add(-1, 1) == 0", cpu_s=1, wall_s=DEADLINE_S)
CODE = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    "answer",
    [
        CODE,
        f"Here is the function:\n\n```python\n{CODE}\n```\n\n```\n>>> add(1, 2)\n3\n```",
        f"```\n{CODE}",
        f"Sure! Here you go:\n{CODE}\n\nThis function adds two numbers.",
        "add = lambda a, b: a + b",
        f"{CODE}\n\nif __name__ == '__main__':\n    raise SystemExit(add(1, 2))",
    ],
)
def test_code_is_found_and_passes(answer: str) -> None:
    assert grader(ADD)(answer) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "def add(a, b):\n    return a - b",
        "def add(a, b):\n    return abs(a) + b",
        "def plus(a, b):\n    return a + b",
        "def add(a, b)\n    return a + b",
        "raise SystemExit(0)",
        "import os\nos._exit(0)",
    ],
)
def test_wrong_code_fails(answer: str) -> None:
    assert grader(ADD)(answer) == 0.0


@pytest.mark.parametrize(
    "answer", ["", "I cannot do that.", "```python\n```", "-" * 5_000_000, "(" * 9_000, "def \x00"]
)
def test_no_code_scores_zero_without_a_process(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "run_tests", lambda *_, **__: pytest.fail("started a process"))
    assert grader(ADD)(answer) == 0.0


def test_options_refuse_tests_that_do_not_parse() -> None:
    with pytest.raises(ValidationError, match="not Python"):
        Options(tests="assert (")


@given(st.text())
def test_any_text_scores_zero_or_one(answer: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "run_tests", lambda *_, **__: SandboxOutcome(False, True, False))
        assert grader(ADD)(answer) in (0.0, 1.0)
