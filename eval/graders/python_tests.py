"""`python_tests`: the code in the answer passes the tests, in a sandboxed process."""

from __future__ import annotations

import ast

from pydantic import Field, field_validator

from base.answer_text import clip
from base.code_text import code_in
from base.errors import DataError
from base.sandbox.runner import SandboxLimits, run_tests
from eval.graders import Grader
from router.types import Record


class Options(Record):
    """`tests`: Python statements, usually asserts, run after the answer in its namespace. All must pass.

    `cpu_s`, `wall_s` and `memory_mib` bound the run. What the sandbox guards and what it does not is in
    `base.sandbox.runner.run_tests`. Where the kernel has no system call filter (outside Linux on x86_64 and aarch64) a
    weaker guard inside the interpreter does; `must_filter` refuses to run there.
    """

    tests: str = Field(min_length=1)
    cpu_s: int = Field(default=2, ge=1, le=60)
    wall_s: float = Field(default=6.0, gt=0, le=120)
    memory_mib: int = Field(default=256, ge=64, le=4096)
    must_filter: bool = False

    @field_validator("tests")
    @classmethod
    def _tests_parse(cls, tests: str) -> str:
        try:
            ast.parse(tests)
        except SyntaxError as error:
            raise ValueError(f"not Python: {error}") from error
        return tests


def build(options: Options) -> Grader:
    """A grader that gives 1 when every test passes, else 0.

    Raises:
        DataError: the grader does, when `must_filter` is set and the kernel took no filter.
    """
    limits = SandboxLimits(options.cpu_s, options.wall_s, options.memory_mib * 2**20)

    def grade(answer: str) -> float:
        code = code_in(clip(answer))
        if not code:
            return 0.0
        outcome = run_tests(code, options.tests, limits)
        if options.must_filter and outcome.is_filtered is False:
            raise DataError("grader python_tests: must_filter=true and this kernel took no system call filter")
        return float(outcome.has_passed)

    return grade


EXAMPLES: tuple[Options, ...] = (
    Options(tests="assert add(2, 3) == 5"),
    Options(tests="assert is_even(4)\nassert not is_even(7)", cpu_s=1, wall_s=3.0, memory_mib=128),
)
