"""`code`: Python, by what it gives on the examples of the prompt."""

from __future__ import annotations

import hashlib

from pydantic import Field

from base.answer_text import clip
from base.code_text import calls_in, code_in
from base.sandbox.runner import SandboxLimits, run_tests
from router.strategies.types import MAX_PROMPT_CHARS, AnswerKind, KeyOf, Question
from router.types import Record


class Options(Record):
    """Bounds of one run; `base.sandbox.runner.run_tests` says what guards it."""

    cpu_s: int = Field(default=1, ge=1, le=10)
    wall_s: float = Field(default=2.0, gt=0, le=20)
    memory_mib: int = Field(default=256, ge=64, le=4096)


def build(options: Options) -> AnswerKind:
    """Keys are digests of the results of all calls with literal arguments that the prompt shows (`add(2, 3) == 5`).

    A prompt that shows none is declined. Code that fails at every call has no key; so has all code where the kernel
    has no filter of system calls, where none is run.
    """
    limits = SandboxLimits(options.cpu_s, options.wall_s, options.memory_mib * 2**20)

    def key_for(question: Question) -> KeyOf | None:
        calls = calls_in(question.text[:MAX_PROMPT_CHARS])

        def key(answer: str) -> str | None:
            code = code_in(clip(answer))
            outcome = run_tests(code, "", limits, calls, needs_filter=True) if code else None
            if outcome is None or not outcome.has_passed:
                return None
            says = [result for result in outcome.results if not result.startswith("'raises ")]
            is_unstable = any(" at 0x" in result for result in says)  # an object's address differs in every process
            return None if not says or is_unstable else hashlib.sha256("\n".join(outcome.results).encode()).hexdigest()

        return key if calls else None

    return AnswerKind(key_for, is_slow=True)


EXAMPLES = (Options(), Options(cpu_s=2, wall_s=4.0, memory_mib=128))
