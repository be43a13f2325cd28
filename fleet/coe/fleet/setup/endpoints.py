"""OpenAI-compatible endpoints that are asked which models they have, and experts from them."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from coe.base.errors import ConfigError, EngineError
from coe.router.prices.price_list import entry_keys, price_entry

ADDRESS = re.compile(r"https?://[^/\s@]+(/\S*)?$")
SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)[bB](?![A-Za-z0-9])")
"""Billions of parameters in a model's name: Qwen2.5-Coder-32B-Instruct."""

EMBEDS = re.compile(r"embed|(?<![a-z0-9])(bge|e5|gte|minilm)(?![a-z0-9])", re.IGNORECASE)
RERANKS = re.compile(r"rerank", re.IGNORECASE)
"""Names of models that do not chat, and what APIs say of such models."""

PREFIXES = (
    (re.compile(r"(?<![a-z0-9])e5(?!.*(instruct|mistral))", re.IGNORECASE), "query: ", "passage: "),
    (re.compile(r"nomic-embed-text", re.IGNORECASE), "search_query: ", "search_document: "),
    (
        re.compile(r"bge-(small|base|large)-en|mxbai-embed", re.IGNORECASE),
        "Represent this sentence for searching relevant passages: ",
        "",
    ),
)
"""Prefixes of queries and of documents by the name of a model, from its model card."""

KINDS = ("mode", "type", "task", "model_type", "capabilities")
"""Keys by which LiteLLM, Together, TEI and Infinity say what a model is for."""

TIMEOUT = aiohttp.ClientTimeout(total=10.0)


class KeyRefusedError(EngineError):
    """The endpoint wants a key, or another one than was sent."""


def opened(key: str | None) -> aiohttp.ClientSession:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(headers=headers, timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())


async def listed_models(url: str, key: str | None) -> dict[str, Mapping[str, Any]]:
    """Entries of `GET URL/models` by the id of each model; of TEI, which has no list, the model of `GET /info`.

    Args:
        url: API root, e.g. http://10.0.0.7:8000/v1, whose query goes with the request.

    Raises:
        KeyRefusedError: status 401 or 403.
        EngineError: no answer, another status, or not a list of models.
    """
    root = URL(url)
    address = (root / "models").with_query(root.query)  # as chats get there
    try:
        async with opened(key) as session:
            status, listed = await got(session, address)
            if status == 404 and "model_id" in (info := (await got(session, root.with_path("/info")))[1] or {}):
                return {str(info["model_id"]): info}
            if status != 200:
                kind = KeyRefusedError if status in (401, 403) else EngineError
                hint = "; an API root mostly ends in /v1" if status == 404 and root.path == "/" else ""
                raise kind(f"{address} answered with status {status}{hint}")
            return {str(each["id"]): each for each in listed["data"]}
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError(f"{url} does not answer ({type(error).__name__})") from error
    except (LookupError, TypeError) as error:
        raise EngineError(f"{address} is not a list of models") from error


async def litellm_facts(url: str, key: str | None) -> dict[str, dict[str, Any]]:
    """`model_info` of a LiteLLM proxy by the name of each model; empty where the endpoint is another."""
    try:
        async with opened(key) as session:
            _, listed = await got(session, URL(url) / "model" / "info")
        return {str(each["model_name"]): dict(each["model_info"]) for each in listed["data"]}
    except (aiohttp.ClientError, OSError, LookupError, TypeError, ValueError):
        return {}


async def got(session: aiohttp.ClientSession, address: URL) -> tuple[int, Any]:
    """Status of an answer, and its JSON; None of one that is no success or no JSON."""
    async with session.get(address, allow_redirects=False) as answer:
        try:
            return answer.status, await answer.json(content_type=None) if answer.status == 200 else None
        except ValueError:
            return answer.status, None


@dataclass(frozen=True)
class Endpoint:
    """An API that speaks OpenAI's API, and its models: the id of each, and what it says of it."""

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
        known = price_entry(f"openai/{model}") if URL(self.url).host == "api.openai.com" else {}
        said = {key: value for key, value in facts.items() if key != "max_tokens"}  # which bounds an answer
        made |= entry_keys({**known, **said})
        if context := context_tokens(facts):
            made["context_tokens"] = context
        return made

    def says(self, model: str) -> str:
        """Purpose of a model by its name and by its endpoint's metadata."""
        return " ".join([model, *(str(self.models[model].get(key, "")) for key in KINDS)])

    async def embedding_entry(self, model: str, key: str | None) -> dict[str, object] | None:
        """The keys of an embedding expert, whose dimensions are those of one short text; None where the endpoint does
        not embed by it."""
        made: dict[str, object] = {"kind": "openai", "url": self.url, "model": model, **prefixes(model)}
        body = {"model": model, "input": "coe"}
        async with opened(key) as session:
            for more in ({}, {"encoding": "float"}):
                asked = body | {"encoding_format": more.get("encoding", "base64")}
                try:
                    async with session.post(f"{self.url}/embeddings", json=asked, allow_redirects=False) as answer:
                        vector = (await answer.json(content_type=None))["data"][0]["embedding"]
                    dim = len(b64decode(vector)) // 4 if isinstance(vector, str) else len(vector)
                except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError):
                    continue
                return made | {"dim": dim} | more | ({"api_key_env": self.key_env} if self.key_env else {})
        return None

    async def reranker_entry(self, model: str, key: str | None) -> dict[str, object] | None:
        """The keys of `retrieval.reranker`; None where the endpoint does not rank two short texts by it."""
        key_env: dict[str, object] = {} if self.key_env is None else {"api_key_env": self.key_env}
        body = {"model": model, "query": "coe", "documents": ["coe", "tea"], "return_documents": False}
        try:
            url = f"{self.url}/rerank"
            async with opened(key) as session, session.post(url, json=body, allow_redirects=False) as answer:
                [float(each["relevance_score"]) for each in (await answer.json(content_type=None))["results"]]
        except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError):
            return None
        return {"url": self.url, "model": model, **key_env}


def prefixes(model: str) -> dict[str, object]:
    """Those that a model was trained with, as far as its name tells."""
    for name, query, document in PREFIXES:
        if name.search(model):
            return {"query_prefix": query, **({"document_prefix": document} if document else {})}
    return {}


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
    root, key = url.rstrip("/"), environment[key_env] if key_env else None
    try:
        models = await listed_models(root, key)
    except KeyRefusedError as error:
        lack = f"another key than that in {key_env}" if key_env else "a key: --api-key-env names its variable"
        raise KeyRefusedError(f"{error}: it wants {lack}") from error
    if not models:
        raise EngineError(f"{root} serves no model")
    known = await litellm_facts(root, key)
    return Endpoint(root, key_env, {name: {**known.get(name, {}), **facts} for name, facts in models.items()})
