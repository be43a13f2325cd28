"""Reading along with an answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.json_text import to_json
from coe.fleet.calls.backend import MAX_EVENT_BYTES, WholeLines
from coe.gateway.chat.event_edits import USAGE as USAGE_EVENT
from coe.gateway.chat.event_edits import Edit, EventEdits, without_usage
from coe.gateway.experts.answer_reader import StreamReader, answer_text, read_answer
from coe.router.prices.usage import Usage, usage_of
from tests.gateway.fault_upstream import CRLF_STREAM, LARGE_STREAM, STREAM, WORDS, delta, events


def whole_lines(stream: bytes, size: int) -> Iterator[bytes]:
    """A stream that came in pieces of that size, as a API gives it."""
    lines = WholeLines(MAX_EVENT_BYTES)
    pieces = (lines.feed(stream[start : start + size]) for start in range(0, len(stream), size))
    return filter(None, itertools.chain(pieces, iter(lines.rest, b"")))


USAGE = b'{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3}}'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1_000_000])
@pytest.mark.parametrize("stream", [STREAM, CRLF_STREAM, events(*WORDS, USAGE, b"[DONE]"), LARGE_STREAM[-600:]])
def test_pieces_of_any_size_read_the_same(stream: bytes, size: int) -> None:
    stream = stream[stream.find(b"data:") :]
    whole, cut = StreamReader(), StreamReader()
    whole.feed(stream)
    for lines in whole_lines(stream, size):
        cut.feed(lines)
    for reader in (whole, cut):
        reader.close()
    assert vars(whole) == vars(cut)
    assert whole.is_done
    assert not whole.is_broken
    assert whole.finish_reason == "stop"


def test_usage_is_reported_or_counted() -> None:
    reader = StreamReader()
    reader.feed(events(*WORDS))
    counted = reader.usage(prompt_tokens=5)
    assert (counted.prompt_tokens, counted.completion_tokens, counted.is_estimated) == (5, 2, True)
    reader.feed(events(USAGE))
    reported = reader.usage(prompt_tokens=5)
    assert (reported.prompt_tokens, reported.completion_tokens, reported.is_estimated) == (11, 3, False)


@pytest.mark.parametrize(
    ("total", "completion"), [(108, 97), (14, 3), (3, 3), (2**31, 3), ("108", 3), (None, 3), (11.5, 3)]
)
def test_what_a_model_thinks_is_counted_where_only_the_total_has_it(total: object, completion: int) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": total}
    assert usage_of(usage) == Usage(prompt_tokens=11, completion_tokens=completion)


@pytest.mark.parametrize("count", [2**31, 10**30, -1, 1.5, True, {"a": 1}])
def test_what_is_no_count_of_tokens_is_none(count: object) -> None:
    reader = StreamReader()
    reader.feed(
        events(to_json({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": 2**31 - 1}}), b"[DONE]")
    )
    assert reader.usage(5) == Usage(completion_tokens=2**31 - 1)


def test_an_event_without_an_end_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.gateway.experts.answer_reader.MAX_EVENT_BYTES", 100)
    reader = StreamReader()
    for _ in range(15):
        assert not reader.is_broken
        reader.feed(b"data:x\n")
    assert (reader.is_broken, reader.is_at_boundary) == (True, True)


@pytest.mark.parametrize("data", [b"{", b"7", b"[]", b'{"choices":[7]}', b"\xff"])
def test_broken_events(data: bytes) -> None:
    reader = StreamReader()
    reader.feed(events(data))
    assert reader.is_broken


def test_an_error_behind_the_end_mark_fails_no_answer() -> None:
    reader = StreamReader()
    reader.feed(events(*WORDS, b"[DONE]", b'{"error":{"message":"late","code":"late"}}', b"{"))
    assert (reader.error_code, reader.is_broken, reader.is_complete) == (None, False, True)


def test_what_is_no_event_is_broken_and_comments_are_not() -> None:
    reader = StreamReader()
    reader.feed(b": ping\n\nevent: message\nid: 7\n" + events(delta("x")))
    assert not reader.is_broken
    reader.feed(b"<html>\n")
    assert reader.is_broken


def test_what_servers_send_beside_an_answer_is_not_taken_for_a_part_of_it() -> None:
    """Azure begins with an event that names no model, others show with empty events that they are at work, or have an
    empty finish reason in every event."""
    reader = StreamReader()
    reader.feed(b"data: \n\n" + events(b'{"model":"","choices":[]}', delta("he").replace(b"null", b'""')))
    assert [reader.is_broken, reader.is_complete] == [False, False]
    assert reader.model == "upstream-model"


def test_the_text_of_an_answer_may_come_in_parts() -> None:
    parts = b'[{"type":"thinking","thinking":[]},{"type":"text","text":"a"},{"type":"text","text":"b"}]'
    assert answer_text(b'{"choices":[{"message":{"content":' + parts + b"}}]}") == "ab"


def test_boundary() -> None:
    reader = StreamReader()
    for piece, is_at_boundary in ((b"data: {}\n", False), (b"\n", True), (b"data: {}", False)):
        reader.feed(piece)
        assert reader.is_at_boundary is is_at_boundary


def test_a_stream_without_end_mark_is_complete_only_with_a_finish_reason() -> None:
    reader = StreamReader()
    reader.feed(events(*WORDS[:2]))
    assert not reader.is_complete
    reader.feed(events(WORDS[2]))
    assert reader.is_complete


def test_whole_answers() -> None:
    body = b'{"choices":[{"message":{},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":-4}}'
    answer = read_answer(body)
    assert (answer.finish_reason, answer.usage.prompt_tokens, answer.usage.completion_tokens) == ("length", 1, 0)
    failed = read_answer(b'{"error":{"message":"x","code":"dead"}}')
    assert failed.error_code == "dead"
    quoting = read_answer(b'{"error":{"message":"x","code":"cannot read: my secret","type":"refused"}}')
    assert quoting.error_code == "refused"
    for broken in (b"", b"{", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[1]}', b'{"choices":[{"message":null}]}'):
        assert read_answer(broken) is None


QUOTED = b'{"choices":[{"delta":{"content":"\\"usage\\""}}],"usage":null}'
OTHERS = st.sampled_from([*WORDS, QUOTED, b"[DONE]", b"{", b""])
EVENTS = st.lists(st.tuples(st.one_of(OTHERS, st.just(USAGE)), st.sampled_from([b"\n\n", b"\r\n\r\n"])))


@given(EVENTS, st.integers(1, 200), st.sampled_from([b"", b"data: [DONE]", b": ping\n"]))
def test_only_events_that_report_nothing_but_usage_are_hidden(
    given_events: list[tuple[bytes, bytes]], size: int, rest: bytes
) -> None:
    stream = b"".join(events(data, end=end) for data, end in given_events) + rest
    hidden = EventEdits([Edit(USAGE_EVENT, without_usage)])
    passed = [hidden.changed(lines) for lines in whole_lines(stream, size)]
    shown = b"".join(events(data, end=end) for data, end in given_events if data != USAGE) + rest
    assert b"".join(passed) + hidden.rest() == shown
