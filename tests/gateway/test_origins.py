"""Web pages in the browser of someone whose machine runs a gateway, and what is open to whom."""

from __future__ import annotations

import json

import aiohttp
import pytest

from coe.base.errors import ConfigError
from coe.gateway.http.auth import OriginCheck
from coe.gateway.http_errors import ApiError
from coe.router.config.composition import parse_config
from tests.gateway.running import Running, config_of, running

KEY = "canary-7f3a9c51e2b84d06"
BODY = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "red"}]})
PATHS = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/v1/files", "/nothing")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", "file://"]
)
async def test_a_page_from_elsewhere_gets_no_answer(gateway: Running, origin: str) -> None:
    headers = {"content-type": "text/plain", "origin": origin}  # what a page may send without being asked
    for path in ("/v1/chat/completions", "/v1/route", "/v1/feedback", "/v1/files", "/v1/vector_stores"):
        async with gateway.client.post(gateway.root + path, data=BODY, headers=headers) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["type"], error["code"]) == (403, "permission_error", "origin_not_allowed")
        assert set(error) == {"message", "type", "param", "code"}
    for path in PATHS:
        async with gateway.client.get(gateway.root + path, headers=headers) as answer:
            assert answer.status == 403, path
    assert gateway.log.records == []


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.7", "127.0.0.1@x"]
)
async def test_a_name_that_was_made_to_point_here_is_refused(gateway: Running, host: str) -> None:
    for path in PATHS:
        async with gateway.client.get(gateway.root + path, headers={"host": host}) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (403, "host_not_allowed"), path
    same = {"host": host, "origin": f"http://{host}"}
    async with gateway.client.post(f"{gateway.root}/v1/chat/completions", data=BODY, headers=same) as answer:
        assert answer.status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.9.1:80", "[::1]:8000"])
async def test_names_of_this_machine_are_taken(gateway: Running, host: str) -> None:
    for headers in ({"host": host}, {"host": host, "origin": f"http://{host}"}):
        async with gateway.client.get(f"{gateway.root}/v1/models", headers=headers) as answer:
            assert answer.status == 200


async def test_configured_names_and_pages_are_taken() -> None:
    async with running(allowed_hosts=["coe.lan"], allowed_origins=["https://Chat.example"]) as gateway:
        for headers, status in (
            ({"host": "coe.lan:8000"}, 200),
            ({"host": "coe.lan", "origin": "http://coe.lan"}, 200),
            ({"origin": "https://chat.example"}, 200),
            ({"origin": "http://chat.example"}, 403),
            ({"host": "coe.lan.evil.example"}, 403),
        ):
            async with gateway.client.get(f"{gateway.root}/v1/models", headers=headers) as answer:
                assert answer.status == status, headers


def test_an_address_with_keys_takes_any_name_unless_some_are_configured() -> None:
    OriginCheck("0.0.0.0").check({b"host": b"gateway.example"})
    OriginCheck("0.0.0.0").check({b"host": b"gateway.example:8443", b"origin": b"https://gateway.example:8443"})
    OriginCheck("::", ["gateway.example"]).check({b"host": b"gateway.example"})
    for check, headers in (
        (OriginCheck("0.0.0.0"), {b"host": b"gateway.example", b"origin": b"https://evil.example"}),
        (OriginCheck("0.0.0.0", ["gateway.example"]), {b"host": b"evil.example"}),
        (OriginCheck("127.0.0.1"), {b"origin": b"http://localhost"}),
    ):
        with pytest.raises(ApiError) as refused:
            check.check(headers)
        assert refused.value.status == 403


def test_default_ports_are_the_same_address() -> None:
    OriginCheck("127.0.0.1").check({b"host": b"localhost:80", b"origin": b"http://localhost"})
    OriginCheck("127.0.0.1").check({b"host": b"localhost", b"origin": b"https://localhost:443"})
    with pytest.raises(ApiError):
        OriginCheck("127.0.0.1").check({b"host": b"localhost:443", b"origin": b"http://localhost"})


@pytest.mark.parametrize("key", ["allowed_origins", "allowed_hosts"])
@pytest.mark.parametrize("value", ["*", "https://chat.example/page", ""])
def test_what_is_no_name_or_origin_is_refused_in_the_file(key: str, value: str) -> None:
    values = config_of().model_dump(mode="json")
    with pytest.raises(ConfigError, match=f"gateway.{key}"):
        parse_config({**values, "gateway": {key: [value]}})


async def test_an_exposed_gateway_answers_strangers_on_healthz_only() -> None:
    async with running(keys=[KEY], host="0.0.0.0") as gateway, aiohttp.ClientSession() as client:
        root = f"http://127.0.0.1:{gateway.gateway.port}"
        for path in PATHS:
            for headers in ({}, {"authorization": "Bearer wrong-key-of-nobody"}):
                async with client.get(root + path, headers=headers) as answer:
                    assert answer.status == (200 if path == "/healthz" else 401), path
            async with client.get(root + path, headers={"authorization": f"Bearer {KEY}"}) as answer:
                # Files are in SQL, and this gateway has none.
                assert answer.status == {"/nothing": 404, "/v1/files": 503}.get(path, 200), path
        async with client.get(f"{root}/healthz") as answer:
            assert await answer.json() == {"status": "ok"}


async def test_on_this_machine_alone_only_the_api_asks_for_a_key() -> None:
    async with running(keys=[KEY]) as gateway:
        for path in PATHS:
            async with gateway.client.get(gateway.root + path) as answer:
                assert answer.status == (401 if path.startswith("/v1/") else 404 if path == "/nothing" else 200), path


async def test_pages_that_may_call_may_read() -> None:
    page, other = {"origin": "https://chat.example"}, {"origin": "https://evil.example"}
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-session-id",
    }
    async with running(allowed_origins=["https://Chat.example"], keys=[KEY]) as gateway:
        url = f"{gateway.gateway.url}/chat/completions"
        async with gateway.client.options(url, headers=page | preflight) as answer:
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == "https://chat.example"
            assert "x-session-id" in answer.headers["access-control-allow-headers"]
        async with gateway.client.options(url, headers=other | preflight) as answer:
            assert (answer.status, "access-control-allow-origin" in answer.headers) == (400, False)
        async with gateway.client.post(url, data=BODY, headers=page | {"authorization": f"Bearer {KEY}"}) as answer:
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == "https://chat.example"
            assert answer.headers["access-control-expose-headers"] == "*"
        async with gateway.client.post(url, data=BODY, headers=page) as answer:  # an error can be read, too
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, "https://chat.example")


async def test_without_allowed_origins_there_is_no_cors() -> None:
    async with running() as gateway, gateway.chat(headers={"origin": gateway.root}) as answer:
        assert answer.status == 200
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
