"""The queries with which `coe up` ends its start: asked over HTTP as any client does, and timed as one sees them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from coe.base.json_text import JsonError, from_json
from coe.decision_log.decision_record import PROBE_HEADER
from coe.fleet.backend import MAX_EVENT_BYTES, WholeLines
from coe.gateway.answer_reader import StreamReader

MAX_TOKENS = 12
"""Enough to see that an expert answers, little enough for sixteen answers in seconds on two cores."""

TIMEOUT_S = 60.0
SHORTEST_TIMED_S = 0.005
MAX_CHARS = 10_000


QUERIES = {
    "arithmetic": "We are 4 people and the bill is 96 euros. What does each of us pay?",
    "extraction": (
        "Give me name, city and phone as JSON: "
        '"Hello, Petra Lindqvist here, I moved to Bergen last month, call me back on 555-0193."'
    ),
    "classification": 'Is this review positive or negative? "The soup came cold and nobody said sorry."',
    "conversion": "How many kilometres is a 26 mile run?",
    "shell": "How can I find every pdf file below the folder reports?",
    "sql": "Write a query that counts how many orders each customer has in the table orders.",
    "code": "Write a Python function that gives back the longest word of a sentence.",
    "translation": "Translate into Spanish: the train to the coast leaves at nine tomorrow.",
    "rewriting": "Make this sound polite: send me that report now, you are late again.",
    "summarization": (
        "Sum this up in one sentence: The town council met on Monday to talk about the old bridge. Engineers said that "
        "it is safe for people on foot but not for trucks. After two hours the members voted to close it to heavy "
        "traffic until spring and to pay for repairs from the road fund."
    ),
    "facts": "Which ocean lies between Portugal and Brazil?",
    "writing": "Write a few lines of verse about a lighthouse keeper in winter.",
    "advice": "I never fall asleep before two in the morning. What could I change in my evenings?",
    "reasoning": "Nora is older than Piet, and Piet is older than Suri. Who of the three is the youngest, and why?",
    "chat": "Hey you, nice to meet you! How is it going?",
    "general": "the thing from earlier, could you",
}
"""One per category of the shipped experts.yaml. The router has not seen them: none is a seed prompt or a probe."""

CONTENTS = "An example of this: {description}"
"""Query for a category that a user added: its own description is the best guess at what is asked there."""


def first_queries(categories: Mapping[str, str]) -> dict[str, str]:
    """Returns a query per category, in the order of `categories` (name -> description)."""
    return {
        name: QUERIES.get(name, CONTENTS.format(description=description)) for name, description in categories.items()
    }


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """One query and its answer. `category` is what the router decided, `asked_for` what the query was written for.

    `fallback` says why it did not go by the map and is empty when it did. `tokens_per_s` counts from the first token to
    the last and is None for an answer of fewer than two tokens. `problem` is None when an answer came.
    """

    query: str
    asked_for: str
    category: str = ""
    confidence: float = 0.0
    expert: str = ""
    fallback: str = ""
    ttft_ms: float | None = None
    tokens_per_s: float | None = None
    text: str = ""
    problem: str | None = None

    @property
    def is_as_meant(self) -> bool:
        """The router put the query into the category that it was written for."""
        return self.problem is None and self.category == self.asked_for


async def ask(session: aiohttp.ClientSession, base_url: str, category: str, query: str) -> FirstAnswer:
    """One streamed answer to `query` through `model: auto`; failures are part of the result."""
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": query}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }
    begin = time.perf_counter()
    try:
        async with session.post(f"{base_url}/chat/completions", json=body, headers={PROBE_HEADER: "1"}) as response:
            if response.status != 200:
                return FirstAnswer(query, category, problem=problem_of(response.status, await response.read()))
            return await read_answer(response, FirstAnswer(query, category), begin)
    except TimeoutError:
        return FirstAnswer(query, category, problem=f"no answer within {TIMEOUT_S:g} s")
    except aiohttp.ClientError as error:
        return FirstAnswer(query, category, problem=f"the connection broke: {error}")


def tokens_per_s(n_tokens: int, elapsed_s: float) -> float | None:
    """Speed between the first and the last piece; None where they came at once, so that there is nothing to time."""
    return (n_tokens - 1) / elapsed_s if n_tokens > 1 and elapsed_s >= SHORTEST_TIMED_S else None


async def read_answer(response: aiohttp.ClientResponse, asked: FirstAnswer, begin: float) -> FirstAnswer:
    """The answer of a stream that has begun."""
    times: list[float] = []  # of its pieces
    problems: list[str] = []

    def note(event: Mapping[str, Any]) -> None:
        if "error" in event:
            problems.append(message_of(event))
        choices = event.get("choices") or [{}]
        if (choices[0].get("delta") or {}).get("content"):
            times.append(time.perf_counter())

    reader, lines = StreamReader(MAX_CHARS, on_event=note), WholeLines(MAX_EVENT_BYTES)
    async for chunk in response.content.iter_any():
        if whole := lines.feed(chunk):
            reader.feed(whole)
    if problems or not times:
        return replace(asked, problem=problems[0] if problems else "the answer was empty")
    headers = response.headers
    return replace(
        asked,
        category=headers.get("x-coe-category", ""),
        confidence=float(headers.get("x-coe-confidence", "0")),
        expert=headers.get("x-coe-expert", ""),
        fallback=headers.get("x-coe-fallback", ""),
        ttft_ms=1e3 * (times[0] - begin),
        tokens_per_s=tokens_per_s(reader.usage(0).completion_tokens, times[-1] - times[0]),
        text=reader.text,
    )


def problem_of(status: int, body: bytes) -> str:
    """`HTTP 503: message` from an error in OpenAI's shape, or from whatever came instead."""
    try:
        return f"HTTP {status}: {message_of(from_json(body))}"
    except JsonError:
        return f"HTTP {status}: {body[:200].decode('utf-8', 'replace')}"


def message_of(event: object) -> str:
    error = event.get("error") if isinstance(event, dict) else None
    return str(error.get("message") if isinstance(error, dict) else error)
