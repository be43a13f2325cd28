"""`coe init`: the first experts.yaml."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.shipped import DEFAULT_CONFIG

if TYPE_CHECKING:
    from coe.fleet.setup.composition import Found
    from coe.fleet.setup.endpoints import Endpoint


def init(
    endpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ENDPOINT",
            help="http://HOST:PORT/v1 of an OpenAI-compatible API, of which every model becomes an expert, or "
            "PROVIDER/MODEL as litellm has it",
            show_default=False,
        ),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", metavar="NAME", help="variable that contains the endpoints' key")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="only this model of an endpoint; repeatable")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="config.yaml of a LiteLLM proxy: its models and aliases instead"),
    ] = None,
    agents: Annotated[bool, typer.Option("--agents", help="categories of asks to coding agents")] = False,
    out: Annotated[Path, typer.Option("--out", help="file to write; it must not exist")] = DEFAULT_CONFIG,
) -> None:
    """Write an experts.yaml for endpoints that you have. Each is asked for its models; nothing is generated."""
    import asyncio

    from coe.base.errors import ConfigError
    from coe.cli.progress import working
    from coe.fleet.setup.composition import Found, write_composition

    if out.exists():  # before any endpoint is asked
        raise ConfigError(f"--out: {out} exists; allowed: a new file")
    if source is None and not endpoints:
        raise ConfigError("no endpoint is named; allowed: coe init ENDPOINT..., e.g. http://127.0.0.1:8001/v1")
    found = Found() if source is None else litellm_models(source)
    if source is None:
        with working("asking the endpoints for their models ..."):
            asyncio.run(add_endpoints(found, endpoints or (), api_key_env, model))
        found.note_unknown()
    found.is_for_agents = agents
    write_composition(found, out)


async def add_endpoints(found: Found, endpoints: Collection[str], key_env: str | None, model: list[str] | None) -> None:
    """Adds the models of endpoints, or those that are named. Raises as `ask_endpoint`, and ConfigError where one
    does not have a named one."""
    import os

    from coe.base.errors import ConfigError, allowed_values
    from coe.fleet.setup.endpoints import ask_endpoint

    for each in endpoints:
        if re.match(r"[\w-]+/.", each):
            add_hosted(found, each, key_env)
            continue
        endpoint = await ask_endpoint(each, key_env, os.environ)
        for name in model or ():
            if name not in endpoint.models:
                raise ConfigError(f"{endpoint.url} has no model '{name}'{allowed_values(name, endpoint.models)}")
        await add_models(found, endpoint, model or endpoint.models, os.environ.get(key_env or ""))


def litellm_models(file: Path) -> Found:
    """Models and aliases of a LiteLLM proxy; what has no counterpart is named. Raises ConfigError."""
    from coe.base.yaml_text import read_yaml
    from coe.fleet.setup.litellm_file import litellm_experts
    from coe.router.config.composition import config_text

    return litellm_experts(read_yaml(config_text(file), file=str(file)), str(file))


def add_hosted(found: Found, model: str, key_env: str | None) -> None:
    """Adds a hosted provider's model; its key is in the variable that the provider's own tools read, or `key_env`."""
    from coe.router.prices.price_list import listed_facts, listed_mode

    if (mode := listed_mode(model)) in ("embedding", "rerank"):
        found.notes.append(f"'{model}' is of mode '{mode}', and is left out; docs/retrieval.md has embedding experts")
        return
    variable = key_env or f"{model.partition('/')[0].upper()}_API_KEY"
    found.add(model, {"engine": "litellm", "model": model, "api_key_env": variable, **listed_facts(model)})


async def add_models(found: Found, endpoint: Endpoint, models: Collection[str], key: str | None) -> None:
    """Adds an expert for each model; of those that do not chat, an embedding expert or a note."""
    from coe.fleet.setup.endpoints import EMBEDS, RERANKS

    for model in models:
        says = endpoint.says(model)
        if RERANKS.search(says):
            entry = None if found.reranker is not None else await endpoint.reranker_entry(model, key)
            if entry is None:
                found.notes.append(f"'{model}' is left out: a reranker, and another is there or it ranked nothing")
            found.reranker = found.reranker or entry
            continue
        if EMBEDS.search(says):
            if embedding := await endpoint.embedding_entry(model, key):
                found.add_embedding(model, embedding)
                continue
            found.notes.append(f"'{model}' gave no embedding, and is an expert; delete it where it answers no chats")
        found.add(model, endpoint.entry(model))
