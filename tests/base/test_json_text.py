"""JSON from outside: what is read, what is refused, and that nothing else in the project reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coe.base.json_text import MAX_DEPTH, MAX_VALUES, JsonError, from_json, has_more_values, to_json

ROOT = Path(__file__).parents[2]
TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\\"[]{},'), max_size=6)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=30
)

NESTINGS = {"lists": (b"[", b"]"), "objects": (b'{"a":', b"}"), "both": (b'[{"a":', b"}]"), "spaced": (b"[ \n", b" ]")}


def nested(kind: str, depth: int) -> bytes:
    begin, end = NESTINGS[kind]
    times = depth // 2 if kind == "both" else depth
    return begin * times + b"1" + end * times


def count_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count_of, inner))


@given(VALUES)
def test_what_json_says_is_read_and_written_again(value: Any) -> None:
    assert from_json(json.dumps(value)) == value
    assert from_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert json.loads(to_json(from_json(json.dumps(value)))) == value


@given(VALUES, st.sampled_from([None, 1]))
@example(["ends with \\", "so", "do not", "these"], None)
def test_values_are_counted_outside_strings(value: Any, indent: int | None) -> None:
    raw, count = json.dumps(value, indent=indent).encode(), count_of(value)
    assert has_more_values(raw, count - 1)
    assert not has_more_values(raw, count)


@pytest.mark.parametrize("kind", NESTINGS)
def test_nesting_is_bounded(kind: str) -> None:
    at_most = nested(kind, MAX_DEPTH)
    assert json.loads(to_json(from_json(at_most))) == json.loads(at_most)
    for depth in (MAX_DEPTH + (2 if kind == "both" else 1), 200, 245, 251, 900, 20_000):
        with pytest.raises(JsonError, match="nested deeper than 64 levels"):
            from_json(nested(kind, depth))
    with pytest.raises(JsonError):
        from_json(b"[" * 100_000)


def test_what_the_encoder_cannot_bear_is_never_decoded() -> None:
    """These overran orjson's buffer, which ended the process, so they get a process of their own."""
    program = """if True:
        from coe.base.json_text import JsonError, from_json, to_json
        for depth in range(240, 256):
            for times in (1, 19, 80, 120, 280):
                one = b"[" * depth + b"]" * depth
                try:
                    to_json({**from_json(b'{"z":[' + b",".join([one] * times) + b"]}"), "model": "m"})
                except JsonError:
                    pass
        print("alive")
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-400:]


@pytest.mark.parametrize("one", [b"1", b'""', b"[]", b'{"a":1}', b"null", b' "\\"," '])
def test_the_number_of_values_is_bounded(one: bytes) -> None:
    with pytest.raises(JsonError, match="holds more than 50000 values"):
        from_json(b"[" + b",".join([one] * 2 * MAX_VALUES) + b"]")
    few = b"[" + b",".join([one] * 20_000) + b"]"
    assert len(from_json(few)) == 20_000


def test_a_long_text_is_one_value_whatever_it_holds() -> None:
    text = "x = [{'a': \"b\\\\\"}, 1, 2],\n" * 60_000
    assert from_json(json.dumps({"text": text})) == {"text": text}


def test_whole_numbers_keep_their_digits() -> None:
    for digits in (20, 40, 400, 4300):
        raw = b'{"n":-%s}' % (b"9" * digits)
        assert from_json(raw) == {"n": -(10**digits) + 1}
        assert to_json(from_json(raw)) == raw
    for number in (b"9" * 4301, b"1e400", b"-1e400", b"9" * 400 + b".5", b"[{},1e999]"):
        with pytest.raises(JsonError, match="is not valid JSON: number out of range"):
            from_json(number)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[1,]",
        b"NaN",
        b"Infinity",
        b"01",
        b'"\\ud800"',
        b'"\xff"',
        b"{} x",
        b'"a\nb"',
        b"\xef\xbb\xbf{}",
        "\ud800",
    ],
)
def test_what_is_not_json_is_refused(raw: bytes | str) -> None:
    with pytest.raises(JsonError, match=r"^is not valid JSON: "):
        from_json(raw)


@pytest.mark.parametrize(
    "raw",
    [b'{"model":1,"model":1}', b'{"model":1,"\\u006dodel":2}', b'{"a":[{"b":{"c":1,"d":2,"c":3}}]}', b'{"":1,"" :2}'],
)
def test_a_key_twice_is_refused_however_written_and_wherever(raw: bytes) -> None:
    with pytest.raises(JsonError, match="duplicate key"):
        from_json(raw)
    assert from_json(raw, has_unique_keys=False) == json.loads(raw)


def test_messages_are_short() -> None:
    with pytest.raises(JsonError) as refused:
        from_json(b'{"' + b"x" * 5000 + b'":1,"' + b"x" * 5000 + b'":1}')
    assert len(str(refused.value)) < 200
