"""The requests that training an adapter makes: to a vLLM, to load it, and to a teacher, to answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from coe.base.errors import DataError, EngineError
from coe.base.journal import Journal
from coe.base.json_text import from_json
from coe.decision_log.decision_record import PROBE_HEADER
from coe.fleet.vllm.command import LOADS_ADAPTERS
from coe.router.config.expert import ExpertConfig
from coe.router.types import Record

ASKED_AT_ONCE = 4
LOAD_TIMEOUT_S, ANSWER_TIMEOUT_S = 120.0, 300.0


async def load_adapter(url: str, entry: ExpertConfig, name: str, adapter: Path) -> None:
    """Let a running vLLM load an adapter; the folder must be at the same path on its machine.

    Raises:
        EngineError: vLLM cannot be reached or refuses; the message has its reason.
    """
    key = os.environ.get(entry.api_key_env or "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"lora_name": name, "lora_path": str(adapter.resolve()), "load_inplace": True}
    timeout = aiohttp.ClientTimeout(total=LOAD_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.post(f"{url.rstrip('/')}/load_lora_adapter", json=body) as response,
        ):
            said = (await response.text())[:300]
            if response.status != 200:
                raise EngineError(
                    f"{url} did not load the adapter (status {response.status}): {said}; needed are the folder on its "
                    f"machine, --enable-lora, and {LOADS_ADAPTERS}=1 in its environment"
                )
    except (aiohttp.ClientError, TimeoutError) as error:
        raise EngineError(f"{url} cannot be reached to load the adapter ({type(error).__name__})") from error


@dataclass(frozen=True, slots=True)
class Teacher:
    """An expert whose answers are learned, and the gateway through which it is asked. `fingerprint` names what
    decides its answers."""

    expert: str
    fingerprint: str
    base_url: str
    api_key: str | None
    max_tokens: int


class Taught(Record):
    """A teacher's answer to a query, and what decided it: `teacher` is its fingerprint."""

    teacher: str
    max_tokens: int
    text: str
    answer: str = ""


async def ask_teacher(teacher: Teacher, prompts: Sequence[str], journal: Journal[Taught]) -> list[str]:
    """Ask the teacher for answers (n), which do not count as traffic; answers in the journal are not asked for again.

    Raises:
        DataError: it did not answer. Answers received so far are in the journal.
    """
    key, base_url = teacher.api_key, teacher.base_url.rstrip("/")
    headers = {PROBE_HEADER: "1"} | ({"authorization": f"Bearer {key}"} if key else {})
    turns = asyncio.Semaphore(ASKED_AT_ONCE)
    decisive = (teacher.fingerprint, teacher.max_tokens)
    known = {each.text: each.answer for each in journal.read() if (each.teacher, each.max_tokens) == decisive}

    async def ask(session: aiohttp.ClientSession, prompt: str) -> None:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": teacher.expert, "messages": messages, "max_tokens": teacher.max_tokens, "temperature": 0}
        async with turns, session.post(f"{base_url}/chat/completions", json=body) as response:
            text = await response.text()
        if response.status != 200:
            raise DataError(f"{base_url} gives status {response.status} for model '{teacher.expert}'")
        found = from_json(text.encode())
        known[prompt] = str(found["choices"][0]["message"]["content"] or "") if isinstance(found, dict) else ""
        journal.append(Taught(teacher=decisive[0], max_tokens=decisive[1], text=prompt, answer=known[prompt]))

    try:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            for prompt in prompts:
                if prompt not in known:
                    tasks.create_task(ask(session, prompt))
    except* (aiohttp.ClientError, TimeoutError) as errors:
        raise DataError(f"{base_url} cannot be asked ({type(errors.exceptions[0]).__name__})") from errors
    except* DataError as errors:
        raise errors.exceptions[0] from None
    return [known[prompt] for prompt in prompts]
