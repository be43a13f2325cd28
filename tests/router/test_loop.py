"""The state of a loop of tools: read from messages alone, and the same in every API."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.gateway.chat.adapters.messages import MessagesAdapter
from coe.gateway.chat.adapters.responses import ResponsesAdapter
from coe.gateway.chat_request import chat_request
from coe.router.config.gateway import GatewayConfig
from coe.router.loop import STALLED_AT, WINDOW, LoopState, Phase, error_of

Done = tuple[str, dict[str, Any], str]
"""A call of a tool by name with arguments, and its result."""

BOUNDS = GatewayConfig()
BENCH = Path(os.environ.get("COE_BENCH_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
DATA = BENCH / "agents" / "tau_airline_gpt4o.parquet"
SUITE_FAILS = "Exit code 1\n=========== 2 failed, 3 passed in 0.31s ==========="


def chat_body(turns: Sequence[Sequence[Done]], system: str = "Work.") -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}, {"role": "user", "content": "mend it"}]
    for number, turn in enumerate(turns):
        calls = []
        for place, (name, arguments, _) in enumerate(turn):
            function = {"name": name, "arguments": json.dumps(arguments)}
            calls.append({"id": f"c{number}-{place}", "type": "function", "function": function})
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        for place, done in enumerate(turn):
            messages.append({"role": "tool", "tool_call_id": f"c{number}-{place}", "content": done[2]})
    return {"model": "auto", "messages": messages}


def state(turns: Sequence[Sequence[Done]], system: str = "Work.") -> LoopState:
    found = chat_request(chat_body(turns, system), BOUNDS).facts.loop
    assert found is not None
    return found


def from_messages(turns: Sequence[Sequence[Done]]) -> LoopState | None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "mend it"}]
    for number, turn in enumerate(turns):
        uses, results = [], []
        for place, (name, arguments, result) in enumerate(turn):
            uses.append({"type": "tool_use", "id": f"c{number}-{place}", "name": name, "input": arguments})
            results.append({"type": "tool_result", "tool_use_id": f"c{number}-{place}", "content": result})
        messages += [{"role": "assistant", "content": uses}, {"role": "user", "content": results}]
    body = {"model": "auto", "max_tokens": 9, "system": "Work.", "messages": messages}
    return MessagesAdapter().request(body, BOUNDS, {}).facts.loop


def from_responses(turns: Sequence[Sequence[Done]]) -> LoopState | None:
    items: list[dict[str, Any]] = [{"role": "user", "content": "mend it"}]
    for number, turn in enumerate(turns):
        for place, (name, arguments, _) in enumerate(turn):
            call = {"call_id": f"c{number}-{place}", "name": name, "arguments": json.dumps(arguments)}
            items.append({"type": "function_call", **call})
        for place, done in enumerate(turn):
            items.append({"type": "function_call_output", "call_id": f"c{number}-{place}", "output": done[2]})
    body = {"model": "auto", "instructions": "Work.", "input": items}
    return ResponsesAdapter().request(body, BOUNDS, {}).facts.loop


CALLS = st.tuples(
    st.sampled_from(["read_file", "bash", "edit_file", "run_tests", "update_plan"]),
    st.dictionaries(st.sampled_from(["path", "command"]), st.sampled_from(["a", "pytest -q", "sed -i s/a/b/ x"])),
    st.sampled_from(["fine", "", "Error: no such file 12", SUITE_FAILS, '{"exit_code": 2}', '{"ok": true}']),
)
LOOPS = st.lists(st.lists(CALLS, min_size=1, max_size=3), min_size=1, max_size=9)


@given(LOOPS)
def test_every_api_reaches_the_same_state(turns: list[list[Done]]) -> None:
    assert from_messages(turns) == from_responses(turns) == state(turns)


@given(LOOPS)
def test_counts_stay_within_what_happened(turns: list[list[Done]]) -> None:
    found = state(turns)
    assert found.turns == len(turns)
    assert found.tool == turns[-1][-1][0]
    assert 1 <= found.same_calls <= min(WINDOW, len(turns))
    assert found.is_error == any(error_of(result) for _, _, result in turns[-1]) == bool(found.same_errors)
    assert (found.good_turns == 0) or not found.is_error
    assert found.edits + found.tests <= sum(map(len, turns))
    assert not (found.is_settled and found.is_stalled)


@given(LOOPS, CALLS)
def test_a_call_that_fails_three_times_stalls_the_loop_and_two_new_ones_settle_it(
    turns: list[list[Done]], call: Done
) -> None:
    failed = (*call[:2], "Error: at line 7")
    again = [[(*call[:2], f"Error: at line {number}")] for number in range(STALLED_AT)]
    assert not state([[failed]]).is_stalled
    assert state([*turns, *again]).is_stalled
    new: list[list[Done]] = [[("read_file", {"path": str(number)}, f"new {number}")] for number in range(2)]
    assert not state([*turns, *again, *new[:1]]).is_settled
    assert state([*turns, *again, *new]).is_settled


def test_a_call_repeats_only_where_it_brings_nothing_new() -> None:
    def polls(*results: str) -> LoopState:
        return state([[("status", {"id": 7}, result)] for result in results])

    assert polls("10% done", "20% done", "30% done").same_calls == 1
    assert polls("waiting", "waiting", "waiting").same_calls == 3
    assert polls("Error: a", "Error: b", "Error: c").same_calls == 3, "each time it failed, otherwise"
    assert polls("Error: a", "Error: b", "Error: c").same_errors == 1
    one, other = ({"b": 1, "a": 2}, {"a": 2, "b": 1})
    assert state([[("f", one, "x")], [("f", other, "x")]]).same_calls == 2, "the order of arguments says nothing"
    assert state([[("f", one, "x"), ("f", one, "x"), ("f", one, "x")]]).same_calls == 1, "within one turn"


def test_the_same_error_of_other_calls_counts_without_its_numbers() -> None:
    turns: list[list[Done]] = [[("bash", {"command": f"try {n}"}, f"Error: port {n} is in use")] for n in range(3)]
    found = state(turns)
    assert (found.same_calls, found.same_errors, found.is_stalled) == (1, 3, True)
    gone = [[("bash", {"command": f"look {n}"}, f"found {n}")] for n in range(WINDOW)]
    assert state([*turns, *gone, turns[0]]).same_errors == 1, "what is older than the window is forgotten"


def test_edits_and_tests_since_the_tests_passed_and_the_phase() -> None:
    read: Done = ("read_file", {"path": "a"}, "text")
    edit: Done = ("edit_file", {"path": "a"}, "done")
    fails: Done = ("bash", {"command": "cd x && pytest -q"}, SUITE_FAILS)
    passes: Done = ("bash", {"command": "npm run test"}, "5 passed")

    def seen(*steps: Done) -> tuple[int, int, Phase]:
        found = state([[step] for step in steps])
        return found.edits, found.tests, found.phase

    assert seen(read) == (0, 0, Phase.PLAN)
    assert seen(read, ("TodoWrite", {"todos": "pytest"}, "ok")) == (0, 0, Phase.PLAN)
    assert seen(edit, read) == (1, 0, Phase.EDIT)
    assert seen(edit, fails, edit, fails, read) == (2, 2, Phase.VERIFY)
    assert seen(edit, fails, edit, passes) == (0, 0, Phase.FINAL)
    assert seen(edit, passes, ("shell", {"command": ["apply_patch", "..."]}, "Done!")) == (1, 0, Phase.EDIT)


@pytest.mark.parametrize(
    "result",
    [
        "Error: flight HAT030 not available",
        "<tool_use_error>File has not been read yet</tool_use_error>",
        "bash: line 1: foo: command not found",
        'Traceback (most recent call last):\n  File "a.py"\nKeyError: 1',
        "ModuleNotFoundError: No module named 'x'",
        "Exit code: 2\nWall time: 0.1 seconds\nOutput:\n",
        "Chunk ID: 1\nProcess exited with code 1\nOutput: x",
        SUITE_FAILS,
        '{"output": "boom", "metadata": {"exit_code": 1, "duration_seconds": 0.1}}',
        '{"isError": true, "content": []}',
        '{"status": "failed"}',
        "fatal: not a git repository",
    ],
)
def test_what_is_an_error(result: str) -> None:
    assert error_of(result)
    assert error_of(f"{result}\n")


@pytest.mark.parametrize(
    "result",
    [
        "",
        "[]",
        "42",
        "Exit code: 0\nOutput:\nno errors",
        "def error_of(result):\n    raise ValueError",
        "====== 5 passed in 0.1s ======",
        '{"error": null, "exit_code": 0, "success": true}',
        '{"log": "an error occurred earlier and was handled"}',
        "[1, 2",
        "{" * 100_000,
    ],
)
def test_what_is_none(result: str) -> None:
    assert error_of(result) == ""


def test_sub_agents_are_known_by_their_system_prompt() -> None:
    step: list[list[Done]] = [[("f", {}, "x")]]
    assert not state(step, "You are Claude Code, Anthropic's official CLI for Claude. Use sub-agents.").is_subagent
    assert state(step, "You are an agent for Claude Code, Anthropic's official CLI.").is_subagent
    assert state(step, "You are a careful reviewing sub-agent. Report back.").is_subagent


def test_old_functions_and_calls_without_results_are_read_too() -> None:
    user = {"role": "user", "content": "mend it"}
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    result = {"role": "function", "name": "f", "content": "Error: no"}
    found = chat_request({"model": "auto", "messages": [user, *[call, result] * 3]}, BOUNDS).facts.loop
    assert found == LoopState(turns=3, tool="f", is_error=True, same_calls=3, same_errors=3)
    odd = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}, 7]}
    left = {"role": "tool", "tool_call_id": "other", "content": "x"}
    found = chat_request({"model": "auto", "messages": [user, odd, left]}, BOUNDS).facts.loop
    assert found is not None
    assert (found.turns, found.tool, found.good_turns) == (1, "", 1)
    assert chat_request({"model": "auto", "messages": [user, call, result, {**user}]}, BOUNDS).facts.loop is not None
    done = {"role": "assistant", "content": "done"}
    assert chat_request({"model": "auto", "messages": [user, call, result, done, user]}, BOUNDS).facts.loop is None


@pytest.mark.skipif(not DATA.is_file(), reason=f"needs {DATA.name}, real loops of tau-bench, which are not copied here")
def test_real_loops_that_stall_fail() -> None:
    """200 conversations of gpt-4o with an airline's tools: those that stall are few, and none of them succeeds."""
    from pyarrow.parquet import read_table

    stalled, others = list[float](), list[float]()
    for row in read_table(DATA).to_pylist():
        messages = json.loads(row["messages"])
        seen = [
            chat_request({"model": "auto", "messages": messages[:end]}, BOUNDS).facts.loop
            for end in range(2, len(messages) + 1)
        ]
        is_stalled = any(loop is not None and loop.is_stalled for loop in seen)
        (stalled if is_stalled else others).append(row["reward"])
    assert 3 <= len(stalled) <= 20
    assert sum(stalled) / len(stalled) < sum(others) / len(others) / 2
