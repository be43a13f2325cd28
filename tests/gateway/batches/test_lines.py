"""Lines of a batch as they are read and written."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from coe.gateway.batches.lines import Line, answer_line, error_line, raw_lines, read_lines
from coe.gateway.http.inner_request import Answer

URL = "/v1/chat/completions"


def line(custom_id: object = "a", **changed: object) -> bytes:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": URL, "body": {"n": 1}, **changed}).encode()


def test_each_fault_is_said_with_its_line_and_what_is_allowed() -> None:
    bad = [
        (b"{", "invalid_json_line", "line 1 is not valid JSON"),
        (b"[1]", "invalid_json_line", "line 2 is not a JSON object"),
        (line(custom_id=7), "invalid_value", "'custom_id' of line 3 is 7; allowed: a text"),
        (line("get", method="GET"), "invalid_value", "'method' of line 4 is 'GET'; allowed: POST"),
        (line("url", url="/v1/x"), "invalid_value", f"'url' of line 5 is '/v1/x'; allowed: {URL}"),
        (line("body", body="x"), "invalid_value", "'body' of line 6"),
        (line("stream", body={"stream": True}), "invalid_value", "without 'stream'"),
        (line("a" * 600), "invalid_value", "1 to 512"),
        (line("long", body={"x": "y" * 2000}), "line_too_large", "line 9 has more than 1000 bytes"),
    ]
    text = b"\n".join([*(raw for raw, _, _ in bad), b"\xef\xbb\xbf" + line("twice"), b"  ", line("twice")])
    read = list(read_lines([text], URL, 1000))
    for found, (_, code, message) in zip(read, bad, strict=False):
        assert found.error[0] == code
        assert message in found.error[1]
    assert [found.number for found in read] == [*range(1, 11), 12]
    assert read[9].error is None
    assert (read[10].custom_id, read[10].error[0]) == ("twice", "duplicate_custom_id")


@given(
    st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")), max_size=20),
    st.integers(1, 50),
    st.data(),
)
def test_lines_are_the_same_however_the_file_is_cut(lines: list[bytes], max_bytes: int, data: st.DataObject) -> None:
    text = b"\n".join(lines)
    size = data.draw(st.integers(1, max(1, len(text))))
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    found = [(number, raw[: max_bytes + 1]) for number, raw in raw_lines(parts, max_bytes)]
    expected = [(number, raw[: max_bytes + 1]) for number, raw in enumerate(lines, 1) if raw.strip()]
    long_blank = {number for number, raw in enumerate(lines, 1) if not raw[: max_bytes + 1].strip()}
    assert [each for each in found if each[0] not in long_blank] == [
        each for each in expected if each[0] not in long_blank
    ]


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_whatever_is_in_a_file_is_read(lines: list[bytes]) -> None:
    for found in read_lines([b"\n".join(lines)], URL, 50):
        assert found.error is not None


@given(st.text(max_size=20), st.text(max_size=50), st.integers(200, 599), st.sampled_from([None, 2]))
def test_a_result_is_one_line_of_json(custom_id: str, text: str, status: int, indent: int | None) -> None:
    body = {"choices": [{"text": text}]}
    answer = Answer(status, {"x-request-id": "req-1"}, json.dumps(body, indent=indent).encode())
    raw = answer_line(Line(1, custom_id), answer)
    assert b"\n" not in raw
    result = json.loads(raw)
    assert result["custom_id"] == custom_id
    assert result["response"] == {"status_code": status, "request_id": "req-1", "decision_id": None, "body": body}
    assert result["error"] is None
    wrong = json.loads(error_line(custom_id, ("code", text)))
    assert (wrong["response"], wrong["error"]) == (None, {"code": "code", "message": text})
