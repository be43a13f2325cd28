"""`coe init`: the first experts.yaml."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.shipped import DEFAULT_CONFIG
from coe.base.visible_text import echo, visible_line

if TYPE_CHECKING:
    from coe.fleet.setup.composition import Found
    from coe.fleet.setup.endpoints import Endpoint

MOST_LISTED = 40
"""Models of one endpoint that are listed; hosted APIs have hundreds, and take a name."""


def init(
    endpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ENDPOINT",
            help="http://HOST:PORT/v1 of an OpenAI-compatible API, of which every model becomes an expert, or "
            "PROVIDER/MODEL as litellm has it; none: you are asked",
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
    out: Annotated[Path, typer.Option("--out", help="file to write; it must not exist")] = DEFAULT_CONFIG,
) -> None:
    """Write an experts.yaml for endpoints that you have. Each is asked for its models; nothing is generated."""
    from coe.base.errors import ConfigError
    from coe.fleet.setup.composition import Found, write_composition

    if out.exists():  # before any question is asked
        raise ConfigError(f"--out: {out} exists; allowed: a new file")
    found = Found() if source is None else litellm_models(source)
    if source is None:
        add_endpoints(found, endpoints or (), api_key_env, model)
        found.note_unknown()
    write_composition(found, out)


def add_endpoints(found: Found, endpoints: Collection[str], key_env: str | None, model: list[str] | None) -> None:
    """Adds the models of endpoints, or of those that a person names."""
    if not endpoints:
        ask_for_experts(found)
    for each in endpoints:
        if is_hosted(each):
            add_hosted(found, each, key_env)
        else:
            endpoint = asked(each, key_env)
            add_models(found, endpoint, known_models(endpoint, model) if model else list(endpoint.models))


def litellm_models(file: Path) -> Found:
    """Models and aliases of a LiteLLM proxy; what has no counterpart is named. Raises ConfigError."""
    from coe.base.yaml_text import read_yaml
    from coe.fleet.setup.litellm_file import litellm_experts
    from coe.router.config import config_text

    return litellm_experts(read_yaml(config_text(file), file=str(file)), str(file))


def is_hosted(endpoint: str) -> bool:
    """Returns True for PROVIDER/MODEL."""
    return re.match(r"[\w-]+/.", endpoint) is not None


def add_hosted(found: Found, model: str, key_env: str | None) -> None:
    """Adds a hosted provider's model; its key is in the variable that the provider's own tools read, or `key_env`."""
    from coe.router.price_list import listed_facts, listed_mode

    if (mode := listed_mode(model)) in ("embedding", "rerank"):
        found.notes.append(f"'{model}' is of mode '{mode}', and is left out; docs/retrieval.md has embedding experts")
        return
    variable = key_env or f"{model.partition('/')[0].upper()}_API_KEY"
    found.add(model, {"engine": "litellm", "model": model, "api_key_env": variable, **listed_facts(model)})


def asked(url: str, key_env: str | None) -> Endpoint:
    """The endpoint and its models. Raises as `ask_endpoint`."""
    import asyncio
    import os

    from coe.cli.progress import working
    from coe.fleet.setup.endpoints import ask_endpoint

    with working(f"asking {url} for its models ..."):
        return asyncio.run(ask_endpoint(url, key_env, os.environ))


def add_models(found: Found, endpoint: Endpoint, models: list[str]) -> None:
    """Adds an expert for each model; of those that do not chat, an embedding expert or a note."""
    import asyncio
    import os

    from coe.fleet.setup.endpoints import EMBEDS, RERANKS

    for model in models:
        says = endpoint.says(model)
        key = os.environ.get(endpoint.key_env or "")
        if RERANKS.search(says):
            entry = None if found.reranker is not None else asyncio.run(endpoint.reranker_entry(model, key))
            if entry is None:
                found.notes.append(f"'{model}' is left out: a reranker, and another is there or it ranked nothing")
            found.reranker = found.reranker or entry
            continue
        if EMBEDS.search(says):
            if embedding := asyncio.run(endpoint.embedding_entry(model, key)):
                found.add_embedding(model, embedding)
                continue
            found.notes.append(f"'{model}' gave no embedding, and is an expert; delete it where it answers no chats")
        found.add(model, endpoint.entry(model))


def ask_for_experts(found: Found) -> None:
    """Asks for one endpoint after another, until none is named. Raises ConfigError where nobody can answer."""
    import sys

    from coe.base.errors import ConfigError, EngineError

    if not sys.stdin.isatty():
        raise ConfigError("nobody is here to be asked; allowed: coe init ENDPOINT..., e.g. http://127.0.0.1:8001/v1")
    echo("An endpoint is http://HOST:PORT/v1 of an OpenAI-compatible API, or PROVIDER/MODEL as litellm has it.")
    while True:
        answer = typer.prompt("Endpoint (empty: done)", default="", show_default=False).strip()
        if not answer:
            return
        try:
            if is_hosted(answer):
                suggested = f"{answer.partition('/')[0].upper()}_API_KEY"
                add_hosted(found, answer, typer.prompt("Variable that contains its key", default=suggested).strip())
            else:
                endpoint = asked_with_key(answer)
                add_models(found, endpoint, chosen_models(endpoint))
        except (ConfigError, EngineError) as error:
            echo(str(error))
        echo(f"experts so far: {', '.join(found.experts) or 'none'}")


def asked_with_key(url: str) -> Endpoint:
    """The endpoint; where it wants a key, a person is asked for the variable that contains it."""
    from coe.fleet.setup.endpoints import KeyRefusedError

    try:
        return asked(url, None)
    except KeyRefusedError:
        return asked(url, typer.prompt("It wants a key. Variable that contains it").strip())


def chosen_models(endpoint: Endpoint) -> list[str]:
    """The models that a person picks; the only one without a question. Raises ConfigError."""
    models = list(endpoint.models)
    if len(models) == 1:
        return models
    for model in models[:MOST_LISTED]:
        echo(f"  {visible_line(model)}")
    if len(models) > MOST_LISTED:
        echo(f"  ... and {len(models) - MOST_LISTED} more")
    wanted = [name.strip() for name in typer.prompt("Models (comma between; `all`)").split(",") if name.strip()]
    return models if wanted == ["all"] else known_models(endpoint, wanted)


def known_models(endpoint: Endpoint, wanted: list[str]) -> list[str]:
    """The wanted models. Raises ConfigError where the endpoint does not have one."""
    from coe.base.errors import ConfigError, allowed_values

    for name in wanted:
        if name not in endpoint.models:
            raise ConfigError(f"{endpoint.url} has no model '{name}'{allowed_values(name, endpoint.models)}")
    return wanted
