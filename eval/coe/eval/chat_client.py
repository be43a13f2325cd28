"""The HTTP client that asks experts, and whose fault a call without an answer is.

An expert's own failure is a score of 0; a fault of the client, the address or the request says nothing about it.
docs/formats.md has the list.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from urllib.parse import urlsplit

import aiohttp

from coe.base.errors import BackendError
from coe.base.json_text import from_json
from coe.base.visible_text import visible_line
from coe.decision_log.decision_record import OUR_FAULTS, PROBE_HEADER
from coe.eval.probe_set import Probe

SAMPLING = {"temperature": 0}
"""Settings by which every answer is drawn: greedily, so that the same expert gives the same answer."""

MAX_RETRY_AFTER_S = 30.0
MAX_QUOTED_CHARS = 200
BUSY_STATUSES = frozenset({429, 503})
LISTED_WITHIN_S, LOOK_EVERY_S = 15.0, 0.25
"""Longest wait in seconds for a model that was just put in force, and the seconds between two looks."""

CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})


class Fault(StrEnum):
    """The cause of a call without an answer, which decides whether it counts as a score."""

    EXPERT = "expert"  # it failed at this prompt: a score of 0
    REQUEST = "request"  # unknown model, a refused request or key, a limit, an outage of the gateway: not measured
    ADDRESS = "address"  # no connection, so that no expert can be asked


class CallError(BackendError):
    """A call without an answer.

    Args:
        reason: the same for the same kind of error, without any of the prompt.
        quoted: the server's own words; empty if it has none.
        is_answered: the server answered with an error, so nothing was generated that is billed.
    """

    def __init__(
        self,
        reason: str,
        fault: Fault = Fault.EXPERT,
        *,
        quoted: str = "",
        is_retryable: bool = False,
        retry_after_s: float | None = None,
        is_answered: bool = False,
    ) -> None:
        super().__init__(reason, is_retryable=is_retryable, retry_after_s=retry_after_s)
        self.reason = reason
        self.fault = fault
        self.quoted = quoted
        self.is_answered = is_answered


class ChatClient:
    """A client of one OpenAI-compatible endpoint that asks greedily and without streaming."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, api_key: str | None = None) -> None:
        self._session = session
        self._root = base_url.rstrip("/")
        self._url = f"{self._root}/chat/completions"
        self._api_key = api_key

    @property
    def shown_url(self) -> str:
        """The address without the password that it may hold."""
        parts = urlsplit(self._url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    async def wait_for_model(self, name: str) -> None:
        """Wait until the endpoint lists a model: a gateway serves a configuration a moment after it was put in
        force. Return after `LISTED_WITHIN_S` in any case, and at once if the endpoint has no list."""
        with suppress(TimeoutError, aiohttp.ClientError, ValueError, TypeError, KeyError):
            async with asyncio.timeout(LISTED_WITHIN_S):
                while name not in await self._models():
                    await asyncio.sleep(LOOK_EVERY_S)

    async def _models(self) -> set[str]:
        async with self._session.get(f"{self._root}/models", raise_for_status=True) as response:
            return {each["id"] for each in from_json(await response.read(), has_unique_keys=False)["data"]}

    async def ask(self, expert: str, probe: Probe) -> tuple[str, Mapping[str, object]]:
        """Return the answer's text and its usage.

        Raises:
            CallError: no connection, a timeout, an HTTP error, or an answer of another shape.
        """
        body = {
            "model": expert,
            "messages": [{"role": "user", "content": probe.text}],
            "max_tokens": probe.max_tokens,
            **SAMPLING,
        }
        try:
            async with self._session.post(self._url, json=body) as response:
                content = await response.read()
        except TimeoutError as error:
            raise CallError("no answer in time", Fault.EXPERT) from error
        except aiohttp.ClientConnectorError as error:
            raise CallError(f"no connection ({type(error).__name__})", Fault.ADDRESS, is_retryable=True) from error
        except aiohttp.ClientError as error:  # the engine closed the connection during this request
            raise CallError(f"connection lost ({type(error).__name__})", Fault.EXPERT, is_retryable=True) from error
        if response.status != 200:
            raise self._refusal(response.status, response.headers.get("retry-after", ""), content)
        return read_answer(content)

    def _refusal(self, status: int, retry_after: str, content: bytes) -> CallError:
        code, message = error_of(content)
        if self._api_key:
            message = message.replace(self._api_key, "...")
        return CallError(
            f"HTTP {status} ({code})",
            fault_of(status, code),
            quoted=visible_line(" ".join(message.split())[:MAX_QUOTED_CHARS]),
            is_retryable=status in BUSY_STATUSES,
            retry_after_s=min(float(retry_after), MAX_RETRY_AFTER_S) if retry_after.isdecimal() else None,
            is_answered=True,
        )


@asynccontextmanager
async def open_client(base_url: str, api_key: str | None, timeout_s: float) -> AsyncIterator[ChatClient]:
    """Open a client of an API root such as http://127.0.0.1:8000/v1, where each expert is a model."""
    headers = {PROBE_HEADER: "1"} | ({"authorization": f"Bearer {api_key}"} if api_key else {})
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=timeout_s)) as session:
        yield ChatClient(session, base_url, api_key)


def fault_of(status: int, code: str) -> Fault:
    """Attribute an HTTP error to the expert or the request."""
    if code in OUR_FAULTS or status in BUSY_STATUSES:
        return Fault.REQUEST
    if status >= 500 or status == 408 or code in CONTEXT_CODES:
        return Fault.EXPERT
    return Fault.REQUEST


def error_of(content: bytes) -> tuple[str, str]:
    """Return the code (or type) and the message of an OpenAI error body."""
    try:
        error = from_json(content, has_unique_keys=False)["error"]
        code = visible_line(str(error.get("code") or error.get("type") or "no code"))
        return code[:64], str(error.get("message") or "")
    except (ValueError, TypeError, KeyError, AttributeError):
        return "no error body", ""


def read_answer(content: bytes) -> tuple[str, Mapping[str, object]]:
    """Parse a chat completion into its text and usage; raise CallError if the body has another shape."""
    try:
        completion = from_json(content, has_unique_keys=False)
        text = completion["choices"][0]["message"]["content"]
        usage = completion.get("usage")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise CallError("the answer is not a chat completion", Fault.EXPERT) from error
    return text if isinstance(text, str) else "", usage if isinstance(usage, dict) else {}
