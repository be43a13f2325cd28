from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.router.answers.command import Options
from tests.router.answers.grading import grader

LIST = Options(accepted=("ls -la /tmp",))


@pytest.mark.parametrize(
    "answer",
    [
        "ls -la /tmp",
        "ls -al /tmp",
        "ls -l -a /tmp",
        "ls /tmp -a -l",
        "ls   -la  '/tmp/'",
        "$ ls -la /tmp",
        "Run `ls -la /tmp` to see them.",
        "```bash\n$ ls -la /tmp\n```\nThis lists `all` files.",
        "ls -la /tmp;",
        "\nls -la /tmp\nThat shows all files.",
    ],
)
def test_equivalent_writings(answer: str) -> None:
    assert grader(LIST)(answer) == 1.0


@pytest.mark.parametrize(
    "answer", ["", "ls -l /tmp", "ls -la", "ls -lah /tmp", "ls --la /tmp", "ls -la /tmp | less", "ls -la '/tmp", "dir"]
)
def test_other_commands(answer: str) -> None:
    assert grader(LIST)(answer) == 0.0


def test_order_of_operands_counts() -> None:
    grade = grader(Options(accepted=("cp a b",)))
    assert (grade("cp a b"), grade("cp b a")) == (1.0, 0.0)


def test_find_tests_keep_their_arguments_and_may_change_places() -> None:
    grade = grader(Options(accepted=("find . -type f -name '*.py' -mtime -7",)))
    assert grade('find ./ -name "*.py" -mtime -7 -type f') == 1.0
    assert grade("find . -type '*.py' -name f -mtime -7") == 0.0
    assert grade("find . -type f -eman '*.py' -mtime -7") == 0.0


def test_pipelines_and_redirections_keep_their_order() -> None:
    grade = grader(Options(accepted=("sort a.txt | uniq -c > out",)))
    assert grade("sort a.txt|uniq -c >out") == 1.0
    assert grade("uniq -c a.txt | sort > out") == 0.0
    assert grade("sort a.txt | uniq -c >> out") == 0.0


def test_several_accepted_variants() -> None:
    grade = grader(Options(accepted=("head -n 5 log", "head -5 log")))
    assert (grade("head -5 log"), grade("head -n 5 log"), grade("head -n5 log")) == (1.0, 1.0, 0.0)


def test_huge_answers() -> None:
    assert grader(LIST)("ls " + "-" * 5_000_000) == 0.0
    assert grader(LIST)("`" * 5_000_000) == 0.0


@pytest.mark.parametrize("accepted", [(), ("",), ("ls 'a",)])
def test_options_refuse_what_is_no_command(accepted: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        Options(accepted=accepted)


@given(st.text() | st.text(alphabet="ls -a/tmp|>;&'\"`$\n"))
def test_score_is_zero_or_one(answer: str) -> None:
    assert grader(LIST)(answer) in (0.0, 1.0)


@given(st.permutations(["-l", "-a", "-h"]), st.booleans())
def test_any_order_of_flags(flags: list[str], joined: bool) -> None:
    text = "-" + "".join(flag[1] for flag in flags) if joined else " ".join(flags)
    assert grader(Options(accepted=("ls -lah src",)))(f"ls {text} src") == 1.0
