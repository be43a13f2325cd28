"""Python in an answer, and the calls that a prompt shows."""

from __future__ import annotations

import ast
import builtins
import re
from typing import Final

from base.answer_text import fenced_blocks

_CODE_START: Final = re.compile(r"^(?:def |class |import |from |@|async def |\w+ *= *lambda)", re.MULTILINE)
_MAX_CUTS: Final = 60
"""Lines dropped from the end while looking for text that parses. Ours."""

_CALL: Final = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\(")
_MAX_CALLS, _MAX_CALL_CHARS = 20, 300


def _parses(code: str) -> bool:
    try:
        return bool(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # NUL bytes, and nesting too deep for the parser
        return False


def _longest_code(text: str) -> str:
    """The longest run of lines, from the first one that begins a definition, that parses; empty when there is none."""
    start = _CODE_START.search(text)
    lines = text[start.start() :].splitlines() if start else []
    for end in range(len(lines), max(0, len(lines) - _MAX_CUTS), -1):
        code = "\n".join(lines[:end])
        if _parses(code):
            return code
    return ""


def code_in(answer: str) -> str:
    """The first fenced block that parses (later ones usually show how to call it), else the answer when all of it
    parses, else its longest part that does. Empty when there is no code."""
    for text in (*fenced_blocks(answer), answer):
        if _parses(text):
            return text
    return _longest_code(answer)


def calls_in(prompt: str) -> tuple[str, ...]:
    """Calls with literal arguments that a prompt shows as examples ("add(2, 3) == 5"), each once, in order.

    `add(a, b)` names parameters, so it does not count; nor does a call of one of Python's own functions.
    """
    found: dict[str, None] = {}
    for match in _CALL.finditer(prompt):
        call = _literal_call(prompt[match.start() : match.start() + _MAX_CALL_CHARS])
        if call is not None and not hasattr(builtins, match.group(1)):
            found[call] = None
        if len(found) == _MAX_CALLS:
            break
    return tuple(found)


def _literal_call(text: str) -> str | None:
    """The call at the beginning of a text, where its arguments are literals and there is at least one."""
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
