"""`coe check --online`: every engine is asked for its expert's model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from coe.gateway.check import engine_problems, not_asked
from coe.gateway.commands.check import troubles
from tests.served_app import app_of, serving
from tests.small_composition import config_of


@asynccontextmanager
async def engine(status: int = 200, body: object = None) -> AsyncIterator[str]:
    """An engine that lists two models for whoever has the key."""

    async def models(request: web.Request) -> web.Response:
        assert request.query_string == "v=1"
        if status != 200 or body is not None:
            return web.json_response(body, status=status)
        if request.headers.get("authorization") != "Bearer right":
            return web.json_response({"error": "no"}, status=401)
        return web.json_response({"object": "list", "data": [{"id": "org/large-7b"}, {"id": "tuned"}]})

    async with serving(app_of({"GET /v1/models": models})) as root:
        yield f"{root}/v1?v=1"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"model": "org/large-7b"}, None),
        ({"model": "whatever", "served_model": "tuned"}, None),
        ({"model": "org/large-8b"}, "model: .* has no model 'org/large-8b'; did you mean 'org/large-7b'?"),
        (
            {"model": "org/large-7b", "served_model": "tund"},
            "served_model: .* has no model 'tund'; did you mean 'tuned'?",
        ),
        ({"model": "org/large-7b", "api_key_env": "WRONG"}, "status 401: it refuses the key in WRONG"),
        ({"model": "org/large-7b", "api_key_env": "UNSET"}, "status 401: it refuses the key in UNSET"),
    ],
)
@pytest.mark.parametrize("kind", ["openai", "vllm"])
async def test_an_engine_that_others_run_is_asked_for_model_or_served_model(entry, problem, kind) -> None:
    async with engine() as url:
        config = config_of({"big": {"engine": kind, "url": url, "api_key_env": "KEY", **entry}})
        found = await engine_problems(config, {"KEY": "right", "WRONG": "wrong"}, {})
    if problem is None:
        assert found == []
    else:
        (line,) = found
        assert line.startswith("experts.big")
        for part in problem.split(".*"):
            assert part in line
        assert "right" not in line
        assert "wrong" not in line


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [(500, {}, "answered with status 500"), (200, {"models": []}, "is not a list of models"), (200, [1], "not a list")],
)
async def test_an_engine_that_is_not_one_is_named(status, body, problem) -> None:
    async with engine(status, body) as url:
        (line,) = await engine_problems(config_of({"big": {"engine": "openai", "model": "m", "url": url}}), {}, {})
    assert problem in line


async def test_an_engine_that_does_not_answer_or_run_is_named() -> None:
    config = config_of(
        {
            "far": {"engine": "openai", "model": "m", "url": "http://127.0.0.1:1/v1"},
            "own": {"engine": "vllm", "model": "m"},
            "echo": {"engine": "echo", "model": "m"},
        }
    )
    assert await engine_problems(config, {}, {}) == [
        "experts.far: http://127.0.0.1:1/v1 does not answer (ClientConnectorError)",
        "experts.own: its engine does not run; `coe experts up` starts it",
    ]
    assert not_asked(config) == ["echo"]


async def test_an_engine_that_we_started_is_asked_for_the_experts_name() -> None:
    async with engine(body={"data": [{"id": "own"}]}) as url:
        config = config_of({"own": {"engine": "vllm", "model": "org/m"}, "other": {"engine": "vllm", "model": "org/m"}})
        (line,) = await engine_problems(config, {}, {"own": (url,), "other": (url,)})
    assert line.startswith("experts.other.served_model: ")


async def test_the_gateway_of_this_host_says_which_experts_get_no_requests() -> None:
    async def experts(_: web.Request) -> web.Response:
        up, down = {"name": "a", "state": "up", "problem": None}, {"name": "b", "state": "down", "problem": None}
        return web.json_response({"data": [up, down, {"name": "c", "state": "disabled", "problem": "c has no key"}]})

    async with serving(app_of({"GET /v1/experts": experts})) as root:
        assert await troubles(f"{root}/v1") == ["expert b is down", "c has no key"]
    assert await troubles("http://127.0.0.1:1/v1") == []
