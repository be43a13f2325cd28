from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from coe.gateway.chat.adapters.adapter import CHAT_END, BufferedTerminator

MARK = re.compile(rb"^data:[ \t]*\[DONE\]", re.MULTILINE)
STREAMS = st.sampled_from(
    [
        b'data: {"a":1}\n\ndata: {"b":"x"}\n\ndata: [DONE]\n\n',
        b'data: {"a":1}\r\n\r\ndata: [DONE]\r\n\r\n',
        b'data: {"text":"say data: [DONE] twice"}\n\ndata:[DONE]\n\n: bye\n\n',
        b'data: {"no":"end"}\n\ndata: [DONT]\n\nd\n',
        b"data: [DONE]",
    ]
)


@given(STREAMS, st.lists(st.integers(0, 60), max_size=8))
def test_only_the_end_is_kept_back_whichever_lines_come_together(stream: bytes, cuts: list[int]) -> None:
    ends = [found.end() for found in re.finditer(rb"\n", stream)]
    edges = sorted({0, len(stream), *(ends[cut] for cut in cuts if cut < len(ends))})
    end = BufferedTerminator(CHAT_END)
    passed = b""
    for start, stop in pairwise(edges):
        passed += end.pass_on(stream[start:stop])
        assert MARK.search(passed) is None
        assert stream.startswith(passed)
    assert passed + end.rest() == stream
    mark = MARK.search(stream)
    assert passed == (stream if mark is None else stream[: mark.start()])
