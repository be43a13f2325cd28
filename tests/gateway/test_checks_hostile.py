"""Hostile and careless clients, keys, labels; numbered as in the project's list of checks."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from coe.base.errors import ConfigError
from coe.fleet.calls.backend import BackendRequest, BackendResponse, Unconnected
from coe.gateway.experts.answer import JSON
from coe.gateway.http.listener import check_exposure, check_strength
from coe.gateway.settings import read_settings
from coe.router.capabilities import Capabilities
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.running import Running, echoes, faulty, provider, running
from tests.gateway.small_router import EXPERTS, small_router

KEY = "canary-7f3a9c51e2b84d06"
OTHER_KEY = "other-0b1c2d3e4f5a6978"
MESSAGE = '"messages":[{"role":"user","content":"red"}]'


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"not json", None),
        (b"[1]", None),
        (b'"text"', None),
        (b"[" * 50_000 + b"]" * 50_000, None),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, None),
        (b'{"model":"auto","temperature":NaN,' + MESSAGE.encode() + b"}", None),
        (b'{"model":"auto","x":1e999,' + MESSAGE.encode() + b"}", None),
        (b'{"model":"auto","messages":[{"role":"user","content":"\\ud800"}]}', None),
        (b'{"model":"auto","messages":[{"role":"user","content":"\xff"}]}', None),
        (b'{"model":"auto","model":"ruby",' + MESSAGE.encode() + b"}", None),
        (b"{" + MESSAGE.encode() + b"}", "model"),
        (b'{"model":7,' + MESSAGE.encode() + b"}", "model"),
        (b'{"model":"auto"}', "messages"),
        (b'{"model":"auto","messages":[]}', "messages"),
        (b'{"model":"auto","messages":"hi"}', "messages"),
        (b'{"model":"auto","messages":[7]}', "messages[0]"),
        (b'{"model":"auto","messages":[{"role":"wizard","content":"x"}]}', "messages[0].role"),
        (b'{"model":"auto","messages":[{"role":"user"}]}', "messages[0].content"),
        (b'{"model":"auto","messages":[{"role":"user","content":[1]}]}', "messages[0].content[0]"),
        (b'{"model":"auto","messages":[{"role":"user","content":[{"type":"text"}]}]}', "messages[0].content[0].text"),
        (b'{"model":"auto","stream":"yes",' + MESSAGE.encode() + b"}", "stream"),
        (b'{"model":"auto","max_tokens":0,' + MESSAGE.encode() + b"}", "max_tokens"),
        (b'{"model":"auto","max_tokens":true,' + MESSAGE.encode() + b"}", "max_tokens"),
        (b'{"model":"auto","n":"2",' + MESSAGE.encode() + b"}", "n"),
        (b'{"model":"auto","tools":{},' + MESSAGE.encode() + b"}", "tools"),
        (b'{"model":"auto","user":5,' + MESSAGE.encode() + b"}", "user"),
    ],
)
async def test_check_22_parser_torture(gateway: Running, body: bytes, param: str | None) -> None:
    async with gateway.client.post(f"{gateway.gateway.url}/chat/completions", data=body) as answer:
        error = (await answer.json())["error"]
    assert answer.status == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert gateway.log.records == []
    async with gateway.chat("red") as answer:  # and it still serves
        assert answer.status == 200


DEEP = [b"[" * depth + b"]" * depth for depth in (64, 251, 900)] + [b'{"a":' * 251 + b"1" + b"}" * 251]


@pytest.mark.parametrize("deep", DEEP)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", b'{"model":"auto","metadata":{"x":%s},' + MESSAGE.encode() + b"}"),
        ("chat/completions", b'{"model":"ruby","tools":[%s],' + MESSAGE.encode() + b"}"),
        ("chat/completions", b'{"model":"ruby","messages":[{"role":"user","content":"x","y":%s}]}'),
        ("route", b'{"text":"red","metadata":%s}'),
        ("route", b'{"messages":[{"role":"user","content":%s}]}'),
        ("feedback", b'{"decision_id":"d","kind":"thumb","value":%s}'),
        ("embeddings", b'{"input":%s}'),
        ("rerank", b'{"query":"x","documents":[%s]}'),
        ("vector_stores", b'{"metadata":{"x":%s}}'),
    ],
)
async def test_check_22_deep_nesting_is_refused_everywhere(path: str, body: bytes, deep: bytes) -> None:
    """Some 250 levels overrun the encoder's buffer: one such body ended the process, and with it every stream."""
    many = b",".join([deep] * 20)
    async with running() as gateway:
        async with gateway.client.post(f"{gateway.gateway.url}/{path}", data=body % (b"[%s]" % many)) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (400, "invalid_json")
        assert error["message"] == "the body is nested deeper than 64 levels"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_experts_deep_answer_is_read_no_further(is_stream: bool) -> None:
    deep = b'{"choices":[{"message":{"content":"x"},"delta":{"content":"x"}}],"z":' + b"[" * 251 + b"]" * 251 + b"}"

    class Deep(Unconnected):
        async def send(self, request: BackendRequest) -> BackendResponse:
            return BackendResponse(200, chunks(), {"content-type": "text/event-stream" if is_stream else JSON})

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"data: " + deep + b"\n\ndata: [DONE]\n\n" if is_stream else deep

    async with running(echoes(ruby=Deep())) as gateway:
        async with gateway.chat("red", stream=is_stream) as answer:
            text = await answer.read()
        record = await gateway.record()
    assert (answer.status, record.error_code) == (
        (200, "broken_stream") if is_stream else (502, "expert_broken_answer")
    )
    assert (deep in text) is is_stream


async def test_check_22_torture_of_the_other_endpoints() -> None:
    bodies = [b"", b"[" * 50_000, b'{"text":7}', b'{"decision_id":1}', b'{"value":NaN}', b"\xff"]
    async with running() as gateway:
        for path in ("route", "feedback"):
            for body in bodies:
                async with gateway.client.post(
                    f"{gateway.gateway.url}/{path}", data=body, headers={"content-type": "application/json"}
                ) as answer:
                    assert answer.status == 400, (path, body[:20])
                    assert (await answer.json())["error"]["message"]
        refusals = (("GET", "/v1/nothing", 404), ("DELETE", "/v1/models", 405), ("GET", "/v1/chat/completions", 405))
        for method, path, status in refusals:
            async with gateway.client.request(method, gateway.root + path) as answer:
                assert answer.status == status
                assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}


async def test_check_24_compressed_bodies_are_refused() -> None:
    body = gzip.compress(b'{"model":"auto",' + MESSAGE.encode() + b"}")
    async with running() as gateway:
        for path in ("chat/completions", "route"):
            async with gateway.client.post(
                f"{gateway.gateway.url}/{path}", data=body, headers={"content-encoding": "gzip"}
            ) as answer:
                assert answer.status == 415
                assert (await answer.json())["error"]["code"] == "unsupported_encoding"


@pytest.mark.parametrize("keys", ["short", "aaaaaaaaaaaaaaaaaaaaaaaa", f"{KEY},weak"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gateway.example"])
def test_check_25_open_addresses_need_strong_keys(host: str, keys: str) -> None:
    with pytest.raises(ConfigError, match="COE_API_KEYS") as refused:
        read_settings({"COE_HOST": host, "COE_API_KEYS": keys})
    assert "\n" not in str(refused.value)
    assert KEY not in str(refused.value)


def test_check_25_loopback_and_strong_keys_are_fine() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        check_strength(host, ["short"])
        check_exposure(host, has_keys=False)
    check_strength("0.0.0.0", [KEY])
    check_exposure("0.0.0.0", has_keys=True)


async def test_check_26_keys_are_needed_and_told_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    async with running(keys=[KEY, OTHER_KEY]) as gateway:
        for path in ("/v1/models", "/v1/decisions/x", "/v1/nothing"):
            async with gateway.client.get(gateway.root + path) as answer:
                assert answer.status == 401
        for header in ("Bearer wrong", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer "):
            async with gateway.chat("red", headers={"authorization": header}) as answer:
                assert answer.status == 401
                shown.append(await answer.text())
        assert gateway.log.records == []
        async with gateway.chat("red", headers={"authorization": f"bearer {KEY}"}) as answer:
            assert answer.status == 200
            shown += [await answer.text(), str(answer.headers)]
        for path in ("/healthz", "/readyz", "/metrics"):
            async with gateway.client.get(gateway.root + path) as answer:
                shown.append(await answer.text())
        record = await gateway.record()
        shown += [record.model_dump_json(), caplog.text, repr(gateway.parts.auth.__dict__)]
    assert record.key_id is not None
    assert all(KEY not in text for text in shown)


async def test_check_27_keys_do_not_cross() -> None:
    async with fault_upstream() as upstream:
        backend = provider(upstream.url, api_key="expert-secret-key")
        async with running(echoes(ruby=backend), keys=[KEY]) as gateway:
            headers = {"authorization": f"Bearer {KEY}", "cookie": "a=b", "x-api-key": KEY, "x-request-id": "req-7"}
            async with gateway.chat("red", headers=headers) as answer:
                assert (answer.status, answer.headers["x-request-id"]) == (200, "req-7")
                decision_id = answer.headers["x-coe-decision-id"]
                assert "expert-secret-key" not in str(answer.headers) + await answer.text()
    received = upstream.headers[0]
    assert received["authorization"] == "Bearer expert-secret-key"
    assert received["x-request-id"] == decision_id
    assert KEY not in str(received)
    assert "cookie" not in received


async def test_check_27_without_an_expert_key_none_is_sent() -> None:
    async with (
        faulty(keys=[KEY]) as (gateway, upstream),
        gateway.chat("red", headers={"authorization": f"Bearer {KEY}"}) as answer,
    ):
        assert answer.status == 200
    assert "authorization" not in upstream.headers[0]


async def test_check_29_another_key_sees_no_decision() -> None:
    async with running(keys=[KEY, OTHER_KEY]) as gateway:
        async with gateway.chat("red", headers={"authorization": f"Bearer {KEY}"}) as answer:
            decision_id = answer.headers["x-coe-decision-id"]
        await gateway.record()
        for key, status in ((KEY, 200), (OTHER_KEY, 404)):
            async with gateway.client.get(
                f"{gateway.gateway.url}/decisions/{decision_id}", headers={"authorization": f"Bearer {key}"}
            ) as answer:
                assert answer.status == status


async def test_check_30_clients_make_no_labels_and_no_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running() as gateway:
        async with gateway.chat("red") as answer:
            assert answer.status == 200
        async with gateway.client.get(f"{gateway.root}/metrics") as answer:
            before = len((await answer.text()).splitlines())
        for i in range(30):
            headers = {"x-request-id": f"evil-{i} FORGED", "x-session-id": f"s{i}"}
            async with gateway.chat(f"red {i}", headers=headers, user=f"u{i}") as answer:
                assert answer.headers["x-request-id"].startswith("req-")
            async with gateway.chat("red", model=f"model-{i}") as answer:
                assert answer.status == 404
        async with gateway.client.get(f"{gateway.root}/metrics") as answer:
            text = await answer.text()
    # New series: one for the status 404, none for the names.
    assert len(text.splitlines()) <= before + 3
    assert "model-7" not in text
    assert "FORGED" not in caplog.text + text


async def test_prompt_text_is_in_no_header_metric_or_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running() as gateway:
        async with gateway.chat("red kumquat", headers={"x-coe-debug": "1"}) as answer:
            assert "kumquat" not in str(answer.headers)
        async with gateway.client.get(f"{gateway.root}/metrics") as answer:
            assert "kumquat" not in await answer.text()
    assert "kumquat" not in caplog.text


async def test_unknown_model_names_those_there_are(gateway: Running) -> None:
    async with gateway.chat("red", model="rubi") as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "did you mean 'ruby'" in error["message"]
    for name in ("auto", "auto:wild", *EXPERTS):
        assert name in error["message"]
    async with gateway.chat("red", model="auto:nothing") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("fields", "media"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "images"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "audio"),
    ],
)
@pytest.mark.parametrize("model", ["auto", "ruby"])
async def test_media_to_text_only_experts_are_400_naming_each(fields: dict[str, Any], media: str, model: str) -> None:
    more = fields if "type" not in fields else {}
    content = [{"type": "text", "text": "red"}, *([] if more else [fields])]
    async with running() as gateway:
        async with gateway.chat("", model=model, messages=[{"role": "user", "content": content}], **more) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (400, "unsupported_by_experts")
        names = EXPERTS if model == "auto" else [model]
        assert all(f"{name}: does not take {media}" in error["message"] for name in names)
        assert (await gateway.record()).state.value == "rejected"


async def test_image_goes_to_the_expert_that_takes_it() -> None:
    router = small_router(
        capabilities={name: Capabilities(supports=frozenset({"images"} if name == "plain" else ())) for name in EXPERTS}
    )
    content = [{"type": "text", "text": "red"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    async with running(router=router) as gateway:
        async with gateway.chat("", messages=[{"role": "user", "content": content}]) as answer:
            assert answer.headers["x-coe-expert"] == "plain"
        async with gateway.chat("", model="ruby", messages=[{"role": "user", "content": content}]) as answer:
            assert answer.status == 400


@pytest.mark.parametrize("model", ["auto", "ruby"])
async def test_context_overflow_is_predicted(gateway: Running, model: str) -> None:
    for fields in ({"text": "red " * 5000}, {"text": "red", "max_tokens": 5000}):
        async with gateway.chat(model=model, **fields) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (400, "context_length_exceeded")
        assert "4096" in error["message"]


async def test_a_fault_of_an_endpoint_is_logged_with_the_id_that_its_client_got(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret text")

    async with running() as gateway:
        monkeypatch.setattr(gateway.store, "get_decision", broken)
        async with gateway.client.get(f"{gateway.gateway.url}/decisions/dec-1") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (500, "gateway_fault")
        said = f"request {answer.headers['x-request-id']} met an unforeseen ZeroDivisionError"
        assert [each.getMessage() for each in caplog.records if "unforeseen" in each.msg] == [said]


async def test_unforeseen_error_is_500_without_its_text() -> None:
    class Broken(Unconnected):
        async def send(self, request: object) -> None:
            raise ZeroDivisionError("secret text")

    async with running(echoes(ruby=Broken())) as gateway:
        async with gateway.chat("red") as answer:
            text = await answer.text()
        assert answer.status == 500
        assert json.loads(text)["error"]["code"] == "gateway_fault"
        assert "secret" not in text
        assert (await gateway.record()).state.value == "upstream_error"
        async with gateway.client.get(f"{gateway.root}/metrics") as answer:
            assert "coe_faults_total 1.0" in await answer.text()
