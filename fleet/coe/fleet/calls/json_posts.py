"""POST of JSON to an endpoint of embeddings or relevance, from threads."""

from __future__ import annotations

import http.client
import logging
import select
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from urllib.parse import urlsplit

import numpy as np
from pydantic import SecretStr

from coe.base.errors import BackendError
from coe.router.types import FloatArray

MAX_ANSWER_BYTES = 256 << 20
REFUSALS = (400, 413, 422)
AT_ONCE = 4
"""Requests with texts of one call; vLLM reads their texts in one batch."""

WHOLE_MODEL = -1
"""`truncate_prompt_tokens` by which vLLM cuts a text to what its model reads."""

logger = logging.getLogger(__name__)


Held = Callable[[], AbstractContextManager[None]]

HELD: dict[str, Held] = {}
"""By API root: has an engine that may sleep woken, and keeps it awake while a request is with it; see `Controller`."""


class RefusedError(BackendError):
    """The endpoint takes the request in no case."""


class JsonPosts:
    """Connections stay open between calls, one per call that runs at the same time; they go with this object.

    Args:
        name: of the endpoint, in errors.
    """

    def __init__(self, name: str, url: str, key: SecretStr | None, timeout_s: float) -> None:
        self._name, self._url, self._key, self._timeout_s = name, urlsplit(url), key, timeout_s
        self._root = url.rpartition("/")[0]
        self._idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, close_all, self._idle)

    def send(self, body: bytes) -> bytes:
        """The answer's body. Raises BackendError where there is none, or its status is not 200."""
        with HELD.get(self._root, nullcontext)():
            status, answer = self._post(body)
        if status in REFUSALS:
            raise RefusedError(f"{self._name} answered with status {status}", status=502)
        if status != 200:
            is_retryable = status in (429, 500, 502, 503, 504)
            raise BackendError(f"{self._name} answered with status {status}", status=502, is_retryable=is_retryable)
        return answer

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of one POST. Asking again does no harm, so a connection that was kept open and turns out
        dead is replaced by a new one."""
        try:
            if (kept := self._kept()) is not None:
                try:
                    return self._send(kept, body)
                except (http.client.HTTPException, ConnectionError):
                    pass
            return self._send(self._connect(), body)
        except TimeoutError as error:
            raise BackendError(
                f"{self._name} gave no answer within {self._timeout_s:g} s", status=504, is_retryable=True
            ) from error
        except (http.client.HTTPException, OSError) as error:
            raise BackendError(
                f"{self._name} cannot be reached ({type(error).__name__})", status=503, is_retryable=True
            ) from error

    def _kept(self) -> http.client.HTTPConnection | None:
        """An open connection without bytes that wait in it: they are of no answer to the next request."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread has it
                return None
            waiting = select.poll()  # `select` itself takes no descriptor above 1,023
            waiting.register(connection.sock, select.POLLIN)
            if not waiting.poll(0):
                return connection
            connection.close()
        return None

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "User-Agent": "coe"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        try:
            connection.request("POST", self._url.path, body, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES)
        except (http.client.HTTPException, OSError):
            connection.close()
            raise
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, answer

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(self._url.netloc, timeout=self._timeout_s)


def close_all(connections: list[http.client.HTTPConnection]) -> None:
    for connection in connections:
        connection.close()


Ask = Callable[[list[str], bool], FloatArray]
"""Asks about texts, cut to what the model reads or whole; a row, or a number, for each. Raises RefusedError."""


def in_batches(texts: Sequence[str], size: int, ask: Ask, *, cuts: bool) -> FloatArray:
    """What is answered about texts, several batches at a time. One text that the endpoint refuses does not cost the
    others their answers.

    Args:
        cuts: of a text that is longer than the model reads the beginning counts, and a warning says so.

    Raises:
        BackendError: an endpoint does not answer, or refuses a text.
    """
    batches = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
    if len(batches) == 1:
        return asked(ask, cuts, batches[0])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return np.concatenate(list(pool.map(partial(asked, ask, cuts), batches)))


def asked(ask: Ask, cuts: bool, texts: list[str]) -> FloatArray:
    """What is answered about one batch; about its halves where it is refused, down to the text that is the reason."""
    try:
        return ask(texts, False)
    except RefusedError as error:
        if len(texts) > 1:
            middle = len(texts) // 2
            return np.concatenate([asked(ask, cuts, texts[:middle]), asked(ask, cuts, texts[middle:])])
        size = len(texts[0])
        if not cuts:
            refused = f"{error}, for a text of {size} characters; is it longer than the model reads?"
            raise RefusedError(refused, status=400) from error
        result = ask(texts, True)
        logger.warning("a text of %d characters is longer than the model reads: its beginning counts", size)
        return result
