"""`code`: Python, by what it gives on the examples of the prompt, or by the tests that it passes."""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from coe.base.sandbox.runner import SandboxLimits, run_tests
from coe.router.answers import MAX_PROMPT_CHARS, AnswerKind, KeyOf, clip, fenced_blocks
from coe.router.types import Record

_CODE_START: Final = re.compile(r"^(?:def |class |import |from |@|async def |\w+ *= *lambda)", re.MULTILINE)
_MAX_CUTS: Final = 60
"""Lines dropped from the end while looking for text that parses. Ours."""

_CALL: Final = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\(")
_MAX_CALLS, _MAX_CALL_CHARS = 20, 300


def _python(tests: str) -> str:
    try:
        ast.parse(tests)
    except SyntaxError as error:
        raise ValueError(f"not Python: {error}") from error
    return tests


class Options(Record):
    """`tests`: Python statements, usually asserts, run after the answer in its namespace. All must pass. The others
    bound a run; `base.sandbox.runner.run_tests` says what guards it."""

    tests: Annotated[str, AfterValidator(_python)] = ""
    cpu_s: int = Field(default=2, ge=1, le=60)
    wall_s: float = Field(default=6.0, gt=0, le=120)
    memory_mib: int = Field(default=256, ge=64, le=4096)


def build(options: Options) -> AnswerKind:
    """Build the kind whose keys are digests of what code returns for the prompt's example calls (`add(2, 3) == 5`). A
    prompt without an example is declined. Code that fails at every call has no key. If the kernel has no filter of
    system calls, no code is run for a key; tests of a probe still run, under a weaker guard."""
    limits = SandboxLimits(options.cpu_s, options.wall_s, options.memory_mib * 2**20)

    def key_for(prompt: str) -> KeyOf | None:
        calls = calls_in(prompt[:MAX_PROMPT_CHARS])

        def key(answer: str) -> str | None:
            code = code_in(clip(answer))
            outcome = run_tests(code, "", limits, calls, needs_filter=True) if code else None
            if outcome is None or not outcome.has_passed:
                return None
            says = [result for result in outcome.results if not result.startswith("'raises ")]
            is_unstable = any(" at 0x" in result for result in says)  # an object's address differs in every process
            return None if not says or is_unstable else hashlib.sha256("\n".join(outcome.results).encode()).hexdigest()

        return key if calls else None

    def score(answer: str) -> float:
        code = code_in(clip(answer))
        return float(bool(code) and run_tests(code, options.tests, limits).has_passed)

    return AnswerKind(key_for, score if options.tests else None, is_slow=True)


def _parses(code: str) -> bool:
    try:
        return bool(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # NUL bytes, and nesting too deep for the parser
        return False


def _longest_code(text: str) -> str:
    """Return the longest run of lines that parses, from the first definition on; empty if there is none."""
    start = _CODE_START.search(text)
    lines = text[start.start() :].splitlines() if start else []
    for end in range(len(lines), max(0, len(lines) - _MAX_CUTS), -1):
        code = "\n".join(lines[:end])
        if _parses(code):
            return code
    return ""


def code_in(answer: str) -> str:
    """Return the code of an answer; empty if there is none. It is the first fenced block that parses, since later ones
    usually show how to call it. Without one it is the whole answer, or its longest part that parses."""
    for text in (*fenced_blocks(answer), answer):
        if _parses(text):
            return text
    return _longest_code(answer)


def calls_in(prompt: str) -> tuple[str, ...]:
    """Return the calls with literal arguments that a prompt shows as examples (`add(2, 3) == 5`), each once, in order.
    `add(a, b)` names parameters, so it does not count; nor does a call of one of Python's own functions."""
    found: dict[str, None] = {}
    for match in _CALL.finditer(prompt):
        call = _literal_call(prompt[match.start() : match.start() + _MAX_CALL_CHARS])
        if call is not None and not hasattr(builtins, match.group(1)):
            found[call] = None
        if len(found) == _MAX_CALLS:
            break
    return tuple(found)


def _literal_call(text: str) -> str | None:
    """Return the call at the beginning of a text if it has arguments and all are literals, else None."""
    depth = 0
    for end, char in enumerate(text, start=1):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0 and char == ")":
            return _checked_call(text[:end])
    return None


def _checked_call(text: str) -> str | None:
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not (call.args or call.keywords):
            return None
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(argument)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return ast.unparse(call)


EXAMPLES = (
    Options(),
    Options(cpu_s=2, wall_s=4.0, memory_mib=128),
    Options(tests="assert add(2, 3) == 5"),
    Options(tests="assert is_even(4)\nassert not is_even(7)", cpu_s=1, wall_s=3.0, memory_mib=128),
)
