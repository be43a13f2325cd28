"""The end of a stream, kept back until its row is safe: a client that has seen `[DONE]` may rely on the log."""

from __future__ import annotations

import re

END_MARK = re.compile(rb"^data:[ \t]*\[DONE\]", re.MULTILINE)
COMPACT_MARK = b"data:[DONE]"


class HeldEnd:
    """Passes the bytes of a stream on, but for what begins with the line `data: [DONE]`; nothing is changed.

    A piece that ends inside what may become that line is kept back up to the line's beginning until more has come.
    """

    def __init__(self) -> None:
        self.held = b""
        self._is_end = False
        self._is_line_start = True  # where `held` begins

    def pass_on(self, chunk: bytes) -> bytes:
        """What may go to the client now; empty when all of it has to wait."""
        text = self.held + chunk
        begin = 0 if self._is_end else self._end_in(text)
        passed, self.held = text[:begin], text[begin:]
        if passed:
            self._is_line_start = passed.endswith(b"\n")
        return passed

    def _end_in(self, text: bytes) -> int:
        """Where the end begins or may begin; the length of `text` when it does not."""
        first_line = 0
        if not self._is_line_start:
            first_line = text.find(b"\n") + 1
            if not first_line:
                return len(text)
        found = END_MARK.search(text, first_line)
        if found is not None:
            self._is_end = True
            return found.start()
        last_line = max(first_line, text.rfind(b"\n") + 1)
        compact = text[last_line:].replace(b" ", b"").replace(b"\t", b"")
        return last_line if COMPACT_MARK.startswith(compact) else len(text)
