"""`coe check --online`: whether every engine has the model that its expert asks for. Nothing is generated."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from base.errors import EngineError, allowed_values
from fleet.model_list import KeyRefusedError, listed_models
from router.config import CoeConfig
from router.expert_config import Engine, ExpertConfig

WIRE = (Engine.OPENAI, Engine.VLLM, Engine.FAKE_VLLM)
"""Engines that list their models at `/models`. llama.cpp is started with its model, litellm's providers have no probe
that they share."""


async def engine_problems(
    config: CoeConfig, environment: Mapping[str, str], running: Mapping[str, Sequence[str]]
) -> list[str]:
    """One line for each expert whose engine does not answer, refuses the key, or does not have its model.

    Args:
        environment: where `api_key_env` is looked up.
        running: API roots of experts whose engines this host started.
    """
    addresses = [
        (name, url)
        for name, entry in config.experts.items()
        if entry.engine in WIRE
        for url in entry.roots or running.get(name) or (None,)
    ]
    found = await asyncio.gather(*(ask(name, config.experts[name], url, environment) for name, url in addresses))
    return [problem for problem in found if problem is not None]


def not_asked(config: CoeConfig) -> list[str]:
    """Experts whose engine cannot be asked."""
    return [name for name, entry in config.experts.items() if entry.engine not in WIRE]


async def ask(name: str, entry: ExpertConfig, url: str | None, environment: Mapping[str, str]) -> str | None:
    """Asks for one expert; returns its problem, or None."""
    if url is None:
        return f"experts.{name}: its engine does not run; `coe experts up` starts it"
    try:
        listed = await listed_models(url, environment.get(entry.api_key_env or ""))
    except KeyRefusedError as error:
        wanted = (
            f"it refuses the key in {entry.api_key_env}" if entry.api_key_env else "it wants a key; set api_key_env"
        )
        return f"experts.{name}: {error}: {wanted}"
    except EngineError as error:
        return f"experts.{name}: {error}"
    wanted = entry.name_on_engine(name)
    if wanted in listed:
        return None
    field = "served_model" if entry.served_model or entry.url is None else "model"
    return f"experts.{name}.{field}: {url} has no model '{wanted}'{allowed_values(wanted, listed)}"
