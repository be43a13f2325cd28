"""`coe check --online`: whether every engine has the model that its expert asks for. Nothing is generated."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from yarl import URL

from base.errors import allowed_values
from router.config import CoeConfig, Engine, ExpertConfig

TIMEOUT_S = 10.0
WIRE = (Engine.OPENAI, Engine.VLLM)
"""Engines that list their models at `/models`. llama.cpp is started with its model, litellm's providers have no probe
that they share."""


async def engine_problems(config: CoeConfig, environment: Mapping[str, str], running: Mapping[str, str]) -> list[str]:
    """One line for each expert whose engine does not answer, refuses the key, or does not have its model.

    Args:
        environment: where `api_key_env` is looked up.
        running: API root of experts whose engine this host started.
    """
    addresses = {name: entry.url or running.get(name) for name, entry in config.experts.items() if entry.engine in WIRE}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        found = await asyncio.gather(
            *(ask(session, name, config.experts[name], url, environment) for name, url in addresses.items())
        )
    return [problem for problem in found if problem is not None]


def not_asked(config: CoeConfig) -> list[str]:
    """Experts whose engine cannot be asked."""
    return [name for name, entry in config.experts.items() if entry.engine not in WIRE]


async def ask(
    session: aiohttp.ClientSession, name: str, entry: ExpertConfig, url: str | None, environment: Mapping[str, str]
) -> str | None:
    """Asks for one expert; returns its problem, or None."""
    if url is None:
        return f"experts.{name}: its engine does not run; `coe up --engines` starts it"
    key = environment.get(entry.api_key_env or "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        async with session.get(URL(url) / "models", headers=headers, allow_redirects=False) as answer:
            if answer.status != 200:
                return f"experts.{name}: {url}/models answered with status {answer.status}{hint(answer.status, entry)}"
            listed = [str(each["id"]) for each in (await answer.json(content_type=None))["data"]]
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"experts.{name}: {url} does not answer ({type(error).__name__})"
    except (ValueError, LookupError, TypeError):
        return f"experts.{name}: {url}/models is not a list of models"
    wanted = entry.name_on_engine(name)
    if wanted in listed:
        return None
    field = "served_model" if entry.served_model or entry.url is None else "model"
    return f"experts.{name}.{field}: {url} has no model '{wanted}'{allowed_values(wanted, listed)}"


def hint(status: int, entry: ExpertConfig) -> str:
    if status not in (401, 403):
        return ""
    return f": it refuses the key in {entry.api_key_env}" if entry.api_key_env else ": it wants a key; set api_key_env"
