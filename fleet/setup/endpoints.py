"""OpenAI-compatible endpoints that are asked which models they have, and experts from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from base.errors import ConfigError, EngineError
from router.price_list import listed_facts

ADDRESS = re.compile(r"https?://[^/\s@]+(/\S*)?$")
SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)[bB](?![A-Za-z0-9])")
"""Billions of parameters in a model's name: Qwen2.5-Coder-32B-Instruct."""

TIMEOUT = aiohttp.ClientTimeout(total=10.0)


class KeyRefusedError(EngineError):
    """The endpoint wants a key, or another one than was sent."""


async def listed_models(url: str, key: str | None) -> dict[str, Mapping[str, Any]]:
    """Entries of `GET URL/models` by the id of each model.

    Args:
        url: API root, e.g. http://10.0.0.7:8000/v1, whose query goes with the request.

    Raises:
        KeyRefusedError: status 401 or 403.
        EngineError: no answer, another status, or not a list of models.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    root = URL(url)
    address = (root / "models").with_query(root.query)  # as chats get there
    session = aiohttp.ClientSession(timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())
    try:
        async with session, session.get(address, headers=headers, allow_redirects=False) as answer:
            if answer.status != 200:
                kind = KeyRefusedError if answer.status in (401, 403) else EngineError
                hint = "; an API root mostly ends in /v1" if answer.status == 404 and root.path == "/" else ""
                raise kind(f"{address} answered with status {answer.status}{hint}")
            return {str(each["id"]): each for each in (await answer.json(content_type=None))["data"]}
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError(f"{url} does not answer ({type(error).__name__})") from error
    except (ValueError, LookupError, TypeError) as error:
        raise EngineError(f"{address} is not a list of models") from error


@dataclass(frozen=True)
class Endpoint:
    """An API that speaks OpenAI's wire, and its models: the id of each, and what it says of it."""

    url: str
    key_env: str | None
    models: Mapping[str, Mapping[str, Any]]

    def entry(self, model: str) -> dict[str, object]:
        """The keys of one model in experts.yaml. What the endpoint does not say is taken from the price table, and the
        size from the model's name."""
        facts = self.models[model]
        engine = "vllm" if facts.get("owned_by") == "vllm" else "openai"
        made: dict[str, object] = {"engine": engine, "model": model, "url": self.url}
        if self.key_env:
            made["api_key_env"] = self.key_env
        if size := SIZE.search(model):
            made["params_b"] = float(size[1])
        if URL(self.url).host == "api.openai.com":
            made |= listed_facts(f"openai/{model}")
        if context := context_tokens(facts):
            made["context_tokens"] = context
        return made


def context_tokens(facts: Mapping[str, Any]) -> int | None:
    """Longest context as vLLM (`max_model_len`), llama.cpp (`meta.n_ctx_train`) and hosted APIs name it."""
    meta = facts.get("meta")
    named = (
        facts.get("max_model_len"),
        meta.get("n_ctx_train") if isinstance(meta, Mapping) else None,
        facts.get("context_length"),
        facts.get("context_window"),
    )
    return next((value for value in named if isinstance(value, int) and value > 0), None)


async def ask_endpoint(url: str, key_env: str | None, environment: Mapping[str, str]) -> Endpoint:
    """Asks an API root for its models.

    Raises:
        ConfigError: the address is not one, or the variable is not set.
        KeyRefusedError: it wants a key, or another one.
        EngineError: it does not answer, or serves no model.
    """
    if not ADDRESS.match(url):
        allowed = "http://HOST:PORT/v1, or PROVIDER/MODEL as litellm has it"
        raise ConfigError(f"'{url}' is not an endpoint; allowed: {allowed}")
    if key_env is not None and not environment.get(key_env):
        raise ConfigError(f"the environment variable {key_env} is not set")
    root = url.rstrip("/")
    try:
        models = await listed_models(root, environment[key_env] if key_env else None)
    except KeyRefusedError as error:
        lack = f"another key than that in {key_env}" if key_env else "a key: --api-key-env names its variable"
        raise KeyRefusedError(f"{error}: it wants {lack}") from error
    if not models:
        raise EngineError(f"{root} serves no model")
    return Endpoint(root, key_env, models)
