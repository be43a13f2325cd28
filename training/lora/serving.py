"""Requests that training an adapter makes: to a vLLM, to load it, and to a teacher, to answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from base.errors import DataError, EngineError
from base.json_text import from_json
from decision_log.decision_record import PROBE_HEADER
from fleet.vllm_command import LOADS_ADAPTERS
from router.expert_config import ExpertConfig

ASKED_AT_ONCE = 4
LOAD_TIMEOUT_S, ANSWER_TIMEOUT_S = 120.0, 300.0


async def load_adapter(url: str, entry: ExpertConfig, name: str, adapter: Path) -> None:
    """Has a running vLLM load an adapter; the folder must be at the same place on its machine.

    Raises:
        EngineError: it cannot, with its reason.
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
    """An expert whose answers are learned, and the gateway through which it is asked."""

    expert: str
    base_url: str
    api_key: str | None
    max_tokens: int


async def taught(teacher: Teacher, prompts: Sequence[str]) -> list[str]:
    """Answers (n) of the teacher, which do not count as traffic.

    Raises:
        DataError: it did not answer.
    """
    key, base_url = teacher.api_key, teacher.base_url.rstrip("/")
    headers = {PROBE_HEADER: "1"} | ({"authorization": f"Bearer {key}"} if key else {})
    turns = asyncio.Semaphore(ASKED_AT_ONCE)

    async def answer(session: aiohttp.ClientSession, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": teacher.expert, "messages": messages, "max_tokens": teacher.max_tokens, "temperature": 0}
        async with turns, session.post(f"{base_url}/chat/completions", json=body) as response:
            text = await response.text()
        if response.status != 200:
            raise DataError(f"{base_url} gives status {response.status} for model '{teacher.expert}'")
        found = from_json(text.encode())
        return str(found["choices"][0]["message"]["content"] or "") if isinstance(found, dict) else ""

    try:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(answer(session, prompt)) for prompt in prompts]
    except* (aiohttp.ClientError, TimeoutError) as errors:
        raise DataError(f"{base_url} cannot be asked ({type(errors.exceptions[0]).__name__})") from errors
    except* DataError as errors:
        raise errors.exceptions[0] from None
    return [each.result() for each in running]
