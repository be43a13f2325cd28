"""The load of an engine, as its own metrics tell it."""

from __future__ import annotations

import re

import aiohttp

MAX_BYTES = 4 << 20
TIMEOUT = aiohttp.ClientTimeout(total=1.0)
GAUGES = re.compile(
    rb"^(?:vllm:num_requests_(?:running|waiting)|llamacpp:requests_(?:processing|deferred)"
    rb"|sglang:num_(?:running|queue)_reqs)(?:\{[^}\n]*\})? ([0-9.e+]+)$",
    re.MULTILINE,
)
"""Requests that run and that wait, in vLLM, llama.cpp (`--metrics`) and SGLang; one line for each of its ranks."""


async def engine_load(session: aiohttp.ClientSession, url: str) -> int | None:
    """Requests that run or wait on the engine at an API root; None where it does not tell."""
    address = url.rstrip("/").removesuffix("/v1") + "/metrics"
    try:
        async with session.get(address, timeout=TIMEOUT, allow_redirects=False) as response:
            text = b""
            while response.status == 200 and len(text) < MAX_BYTES and (more := await response.content.readany()):
                text += more
        told = [float(value) for value in GAUGES.findall(text)]
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
    return int(sum(told)) if told else None
