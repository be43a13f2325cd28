"""`call`: the calls of tools in an answer, as the tools' JSON schemas read them. No call is an answer, too."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import Field, JsonValue

from coe.router.answers import AnswerKind, kind_of_text
from coe.router.types import Record

NO_CALL: Final = "[]"
"""Key of an answer without a call."""

_MAX_CHARS: Final = 100_000
"""Longer answers have no key: half a call is none (ours)."""
_MAX_STARTS: Final = 50
"""Places where JSON is looked for in one answer (ours)."""
_BEGINS: Final = re.compile(r"[{\[]")
_IGNORED: Final = re.compile(r"[ ,./\-_*^]")
"""Characters that make no difference in a text, as in the Berkeley Function Calling Leaderboard."""
_PYTHON: Final = re.compile(r"\[?\s*[A-Za-z_][\w.]*\(")
_FAULTS: Final = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)


class Options(Record):
    """`tools` as a chat request has them, or their functions alone. `right`: answers that are right, as written."""

    tools: tuple[dict[str, JsonValue], ...] = ()
    right: tuple[str, ...] = Field(default=())


def build(options: Options) -> AnswerKind:
    """Build the kind whose keys are an answer's tool calls in any order. Names are compared without `.` and `_`,
    numbers as numbers, texts in lower case without `_IGNORED`, lists in order. Calls are read as chat completions, JSON
    or Python write them."""
    functions = [_part(tool, "function") or tool for tool in options.tools]
    schemas = {_plain(str(each.get("name"))): each.get("parameters") for each in functions}

    def key(answer: str) -> str | None:
        text = answer.strip()
        if not text or len(text) > _MAX_CHARS:
            return None
        try:
            calls = list(_python_calls(text) if _PYTHON.match(text) else _json_calls(text, schemas))
            lines = sorted(_line(_plain(name), given, schemas.get(_plain(name))) for name, given in calls)
        except _FAULTS:  # arguments that are no object, or nested too deep
            return None
        return f"[{', '.join(lines)}]"

    return kind_of_text(key, {key(answer) for answer in options.right})


def _plain(name: str) -> str:
    return name.replace(".", "").replace("_", "").casefold()


def _line(name: str, given: Mapping[str, Any], schema: Any) -> str:
    """Render one call as JSON with sorted argument names; positional arguments of Python have numbers for names."""
    known = list(_part(schema, "properties"))
    named = {known[int(arg)] if arg.isdecimal() and int(arg) < len(known) else arg: given[arg] for arg in given}
    return json.dumps({"name": name, "arguments": _value(named, schema)}, sort_keys=True, ensure_ascii=False)


def _part(schema: Any, name: str) -> Mapping[str, Any]:
    """Return an object of a schema, which need not be well formed; empty if there is none."""
    found = schema.get(name) if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def _value(value: Any, schema: Any) -> Any:
    """Normalize a value by the type that its schema names, else by its own type."""
    if isinstance(value, dict):
        return {name: _value(inner, _part(schema, "properties").get(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_value(inner, _part(schema, "items")) for inner in value]
    kind = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(value, str) and kind in ("integer", "number", "float", "boolean"):
        value = _spelled(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float) and kind != "string":
        return float(value)
    return _IGNORED.sub("", str(value)).casefold()


def _spelled(text: str) -> Any:
    """Return the number or truth value that a text spells, else the text."""
    try:
        found = json.loads(text.strip().lower())
    except ValueError:
        return text
    return found if isinstance(found, int | float) else text


def _json_calls(text: str, tools: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the calls in every JSON value of a text."""
    begin = _BEGINS.search(text)
    for _ in range(_MAX_STARTS):
        if begin is None:
            return
        try:
            value, end = json.JSONDecoder().raw_decode(text, begin.start())
        except ValueError:
            end = begin.end()
        else:
            yield from _calls_in(value, tools)
        begin = _BEGINS.search(text, end)


def _calls_in(value: Any, tools: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield calls, written as `{"name", "arguments"}`, as in a chat completion, or as `{name: arguments}` of a tool."""
    if isinstance(value, list):
        for each in value:
            yield from _calls_in(each, tools)
    if not isinstance(value, dict):
        return
    if isinstance(value.get("name"), str) and "arguments" in value:
        yield value["name"], _object(value["arguments"])
    elif inner := value.get("function") or value.get("tool_calls"):
        yield from _calls_in(inner, tools)
    else:
        yield from ((name, _object(given)) for name, given in value.items() if _plain(name) in tools)


def _object(given: Any) -> dict[str, Any]:
    """Return the arguments of a call as an object; chat completions write it as a text.

    Raises:
        TypeError: the arguments are no object.
        ValueError: the text is not JSON.
    """
    found = json.loads(given or "{}") if isinstance(given, str) else given
    if not isinstance(found, dict):
        raise TypeError("the arguments of a call are an object")
    return found


def _python_calls(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the calls of a text of Python.

    Raises:
        SyntaxError: the text is not Python.
        TypeError: it holds more than calls.
    """
    for statement in ast.parse(text.rstrip("; \n")).body:
        value = statement.value if isinstance(statement, ast.Expr) else None
        for call in value.elts if isinstance(value, ast.List) else [value]:
            if not isinstance(call, ast.Call):
                raise TypeError("not a list of calls")
            given = [(str(place), each) for place, each in enumerate(call.args)]
            given += [(str(each.arg), each.value) for each in call.keywords]
            yield ast.unparse(call.func), {name: _literal(each) for name, each in given}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


EXAMPLES = (
    Options(),
    Options(tools=({"name": "geo.area", "parameters": {"properties": {"base": {"type": "number"}}}},)),
    Options(right=('[{"name": "area", "arguments": {"base": 3}}]',)),
)
