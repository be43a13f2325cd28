"""The state of a loop of tools, read from its messages alone: no model looks at them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

WINDOW: Final = 6
"""Turns in which calls and errors are looked for again, as LiteLLM does."""

MAX_RESULT_CHARS: Final = 4000
"""Head and tail of a result that errors are looked for in: logs are long."""

MAX_COMMAND_CHARS: Final = 1000
MAX_ERROR_CHARS: Final = 300
MAX_JSON_CHARS: Final = 50_000

Message = Mapping[str, Any]
TextOf = Callable[[Message], str]

_PLANS: Final = re.compile(r"todo|plan|think|memory", re.I)
_EDITS: Final = re.compile(r"edit|write|patch|replace|insert|create|update|modify|delete|remove", re.I)
_TESTS: Final = re.compile(r"(?:^|[_-])(?:run)?_?tests?(?:$|[_-])|run_?tests?|verify", re.I)
_TEST_COMMAND: Final = re.compile(
    r"\b(?:pytest|unittest|tox|nox|jest|vitest|mocha|rspec|phpunit|ctest"
    r"|(?:npm|yarn|pnpm|bun|cargo|go|make|mvn|gradlew?|dotnet|bazel|mix|swift)\s+(?:run\s+)?(?:test|check|verify)\w*)\b"
)
_EDIT_COMMAND: Final = re.compile(r"\bapply_patch\b|\bsed\s+-i|\b(?:cat|echo|printf|tee)\b[^|;&]*>")
_ERROR_AT_START: Final = re.compile(
    r"\W*(?:[\w.]{0,60}(?:error|exception|failure)\b|fatal\b|failed\b|panic\b|traceback\b|cannot\b|command failed"
    r"|permission denied|exit (?:code|status):? [1-9])",
    re.I,
)
_ERROR_LINE: Final = re.compile(
    r"^(?:Traceback \(most recent call last\)"
    r"|(?:process )?exit(?:ed)?(?: with)?(?: non-zero)? (?:code|status):? -?[1-9]"
    r"|=+ .{0,80}\b[1-9]\d* (?:failed|errors?)\b"
    r"|.{1,200}: (?:command not found|no such file or directory|permission denied)$)",
    re.I | re.M,
)
_SUBAGENT: Final = re.compile(r"\byou are (?:an?|the) [^.\n]{0,60}(?:sub-?agent\b|\bfor claude code\b)", re.I)
_CODES: Final = ("exit_code", "exitCode", "exit_status", "returncode", "return_code")


class Phase(StrEnum):
    """The kind of work that an agent did last."""

    PLAN = "plan"  # nothing is edited yet
    EDIT = "edit"
    VERIFY = "verify"  # its tests failed
    FINAL = "final"  # its tests passed, and nothing was edited since


STALLED_AT = 3
"""Turns with the same call or the same error at which a loop is stalled."""

SETTLED_AFTER = 2
"""Turns in a row without an error or a repetition after which it is settled (ours)."""


@dataclass(frozen=True, slots=True)
class LoopState:
    """The state of a loop of tools; repetitions are counted within a window of turns."""

    turns: int = 0  # answers so far
    tool: str = ""  # called last
    is_error: bool = False  # in the last results
    same_calls: int = 0  # turns with a call of the last turn that failed each time, or gave the same
    same_errors: int = 0  # turns with an error of the last turn
    good_turns: int = 0  # in a row, up to now, without an error or a repetition
    edits: int = 0  # since the tests passed last
    tests: int = 0  # that failed since
    is_subagent: bool = False
    phase: Phase = Phase.PLAN

    @property
    def is_stalled(self) -> bool:
        return max(self.same_calls, self.same_errors) >= STALLED_AT

    @property
    def is_settled(self) -> bool:
        return self.good_turns >= SETTLED_AFTER


class Step(NamedTuple):
    """A call of a tool with its result, empty where none came. `turn` counts answers."""

    turn: int
    tool: str
    arguments: str
    result: str


def loop_state(messages: Sequence[Message], text_of: TextOf) -> LoopState:
    """Return the state after the last result.

    Args:
        messages: those of a chat request, into which every API is read.
        text_of: returns a message's text.
    """
    steps = list(steps_of(messages, text_of))
    turns = sum(message["role"] == "assistant" for message in messages)
    last = steps[-1].turn if steps else turns
    recent = [step for step in steps if step.turn > turns - WINDOW]
    errors = {step: error_of(step.result) for step in recent}
    now = [step for step in recent if step.turn == last]
    edits, tests, phase = progress(steps)
    return LoopState(
        turns=turns,
        tool=steps[-1].tool if steps else "",
        is_error=any(errors[step] for step in now),
        same_calls=most_turns(now, recent, lambda step: fruitless(step, errors[step])),
        same_errors=most_turns(now, recent, lambda step: errors[step] or None),
        good_turns=good_turns(recent, errors),
        edits=edits,
        tests=tests,
        is_subagent=bool(_SUBAGENT.search(system_of(messages, text_of))),
        phase=phase,
    )


def steps_of(messages: Sequence[Message], text_of: TextOf) -> Iterator[Step]:
    """Yield the calls in order, each with its result, by id or else by position."""
    turn, calls, results = 0, list[Message](), list[Message]()
    for message in (*messages, {"role": "assistant"}):
        if message["role"] in ("tool", "function"):
            results.append(message)
        elif message["role"] == "assistant":
            by_id = {str(each.get("tool_call_id")): each for each in results}
            for place, call in enumerate(calls):
                answer = by_id.get(str(call.get("id"))) or (results[place] if place < len(results) else None)
                function = call.get("function") if isinstance(call.get("function"), dict) else call
                name, arguments = (str((function or {}).get(field, "")) for field in ("name", "arguments"))
                yield Step(turn, name, arguments, "" if answer is None else text_of(answer))
            turn, calls, results = turn + 1, calls_in(message), []


def calls_in(message: Message) -> list[Message]:
    """Return an answer's calls, including the field that preceded `tool_calls`."""
    calls, old = message.get("tool_calls"), message.get("function_call")
    found = calls if isinstance(calls, list) else [old]
    return [call for call in found if isinstance(call, dict)]


def canonical(arguments: str) -> str:
    """Return arguments in one spelling, whatever their order and spaces."""
    if len(arguments) > MAX_JSON_CHARS:
        return arguments
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def system_of(messages: Sequence[Message], text_of: TextOf) -> str:
    first = messages[0]
    return text_of(first)[:MAX_COMMAND_CHARS] if first["role"] in ("system", "developer") else ""


def error_of(result: str) -> str:
    """Return the error that a result reports, with its numbers as 0, because they vary; empty for no error."""
    text, said = result.strip(), object_in(result)
    if len(text) > MAX_RESULT_CHARS:
        text = f"{text[: MAX_RESULT_CHARS // 2]}\n{text[-MAX_RESULT_CHARS // 2 :]}"
    if not (says_error(said) if said else _ERROR_AT_START.match(text) or _ERROR_LINE.search(text)):
        return ""
    return re.sub(r"\s+", " ", re.sub(r"\d+", "0", text))[-MAX_ERROR_CHARS:]


def object_in(result: str) -> dict[str, Any]:
    """Parse a result that is an object; return an empty one if it is none."""
    if not result.lstrip().startswith("{") or len(result) > MAX_JSON_CHARS:
        return {}
    try:
        return dict(json.loads(result))
    except (ValueError, RecursionError):
        return {}


def says_error(said: Mapping[str, Any]) -> bool:
    """Return whether an object's fields report an error, as results of MCP, of Codex and of many APIs do."""
    about = said["metadata"] if isinstance(said.get("metadata"), dict) else {}
    codes = [each[name] for each in (said, about) for name in _CODES if name in each]
    return (
        any(said.get(name) for name in ("error", "errors", "is_error", "isError"))
        or any(said.get(name) is False for name in ("success", "ok"))
        or said.get("status") in ("error", "failed", "failure")
        or any(isinstance(code, int) and code != 0 for code in codes)
    )


def fruitless(step: Step, error: str) -> tuple[str, str, str]:
    """Return a key that two calls share if the second brought nothing new: it failed again, or returned the same."""
    return step.tool, canonical(step.arguments), "" if error else step.result


def most_turns(now: Sequence[Step], recent: Sequence[Step], key: Callable[[Step], object]) -> int:
    """Return the largest number of recent turns that share a key of the last turn; 0 if it has none."""
    wanted = {key(step) for step in now} - {None}
    turns = {(key(step), step.turn) for step in recent}
    return max((sum(found == each for found, _ in turns) for each in wanted), default=0)


def good_turns(recent: Sequence[Step], errors: Mapping[Step, str]) -> int:
    """Count the latest turns in a row in which each call brought something new and nothing failed."""
    count = 0
    for turn in sorted({step.turn for step in recent}, reverse=True):
        own = [step for step in recent if step.turn == turn]
        until = [step for step in recent if step.turn <= turn]
        if any(errors[step] for step in own) or most_turns(own, until, lambda step: fruitless(step, "")) > 1:
            break
        count += 1
    return count


def progress(steps: Sequence[Step]) -> tuple[int, int, Phase]:
    """Return edits and tests since the tests passed last, and the phase of the work."""
    edits = tests = 0
    phase = Phase.PLAN
    for step in steps:
        command = step.arguments[:MAX_COMMAND_CHARS]
        if _PLANS.search(step.tool):
            continue
        if _EDITS.search(step.tool):
            edits, phase = edits + 1, Phase.EDIT
        elif _TESTS.search(step.tool) or _TEST_COMMAND.search(command):
            passed = not error_of(step.result)
            edits, tests = (0, 0) if passed else (edits, tests + 1)
            phase = Phase.FINAL if passed else Phase.VERIFY
        elif _EDIT_COMMAND.search(command):
            edits, phase = edits + 1, Phase.EDIT
    return edits, tests, phase
