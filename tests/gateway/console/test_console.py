"""The console's pages over a real gateway, without a browser: who sees what, and what is refused."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Mapping

import aiohttp
import pytest

from coe.decision_log.database import Database
from coe.decision_log.privacy import keyed_hash
from coe.fleet.calls.connect import DisabledBackend
from coe.fleet.providers import echo
from coe.gateway.console.session import COOKIE
from coe.gateway.console.views import odds
from coe.gateway.http.auth import Auth
from coe.gateway.keys.grants import Grant
from coe.gateway.keys.key_ring import KeyRing
from coe.gateway.keys.key_store import KeyStore
from tests.decision_log.test_listing import made
from tests.gateway.running import Running, running
from tests.gateway.small_router import EXPERTS
from tests.gateway.test_store import record
from tests.waiting import until

DATABASES = ("sqlite",)

KEY = "a key of many characters"
Answer = tuple[int, str, Mapping[str, str]]


async def get(gateway: Running, path: str = "", **headers: str) -> Answer:
    async with gateway.client.get(f"{gateway.root}/console{path}", headers=headers, allow_redirects=False) as answer:
        return answer.status, await answer.text(), answer.headers


async def post(gateway: Running, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
    given = {"origin": gateway.root, **headers}
    url = f"{gateway.root}/console{path}"
    async with gateway.client.post(url, data=fields, headers=given, allow_redirects=False) as answer:
        return answer.status, await answer.text(), answer.headers


@pytest.fixture
def keys(store: Database) -> KeyStore:
    return KeyStore(store, "ann@host")


async def log_in(gateway: Running, secret: str) -> dict[str, str]:
    """The header of a session."""
    async with gateway.client.get(gateway.root, allow_redirects=False) as first:
        assert (first.status, first.headers["location"]) == (303, "/console")
    status, _, headers = await post(gateway, "/login", {"key": secret})
    assert (status, headers["location"]) == (303, "/console")
    assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= set(headers["set-cookie"].split("; "))
    assert secret not in headers["set-cookie"]
    return {"cookie": headers["set-cookie"].partition(";")[0]}


async def test_a_question_shows_its_route_and_then_its_answer(gateway: Running) -> None:
    _, page, _ = await post(gateway, "/ask", {"text": "red & <b>", "model": "auto", "beside": "plain"})
    assert "the measured map sends that category to ruby" in page
    assert re.findall(r"<dt>(\w+)</dt>", page) == ["red", "green"]
    assert page.count('hx-trigger="load"') == 2
    assert "red &amp; &lt;b&gt;" in page
    assert "<b>" not in page
    assert gateway.log.records == []
    _, column, _ = await post(gateway, "/answer", {"text": "red & <b>", "model": "auto"})
    record = await gateway.record()
    assert record.served_expert == "ruby"
    assert not record.is_probe
    assert f'href="/console/decisions/{record.decision_id}"' in column


async def test_a_thumb_is_feedback(gateway: Running) -> None:
    await post(gateway, "/answer", {"text": "red", "model": "auto"})
    record = await gateway.record()
    said = {"decision_id": record.decision_id, "value": "0"}
    status, part, _ = await post(gateway, "/feedback", said, **{"hx-request": "true"})
    assert (status, "Noted: bad answer" in part) == (200, True)
    assert [(each.kind, each.value) for each in gateway.store.feedback.values()] == [("thumb", 0.0)]
    status, _, headers = await post(gateway, "/feedback", said)
    assert (status, headers["location"]) == (303, f"/console/decisions/{record.decision_id}")
    _, receipt, _ = await get(gateway, f"/decisions/{record.decision_id}")
    assert "thumb" in receipt


async def test_a_request_that_reached_no_expert_has_a_page(store: Database) -> None:
    refused = record(
        0, decision=None, served_expert=None, state="rejected", status=429, error_code="insufficient_quota"
    )
    store.write_decisions([refused])
    async with running(store=store) as gateway:
        _, page, _ = await get(gateway, "/decisions/r1-0")
    assert "rejected, HTTP 429, insufficient_quota" in page
    assert "Good answer" not in page


async def test_what_the_api_refuses_is_said_on_the_page(gateway: Running) -> None:
    _, column, _ = await post(gateway, "/answer", {"text": "red", "model": "nobody"})
    assert "the model &#39;nobody&#39; does not exist" in column
    status, page, _ = await get(gateway, "/decisions/none")
    assert (status, "there is no decision" in page) == (404, True)
    assert (await get(gateway, "/nothing"))[0] == 404
    assert (await get(gateway, "/static/../app.py"))[0] == 404


async def test_a_thousand_experts_are_found_a_page_at_a_time() -> None:
    entries = {
        f"expert{number:03}": {"model": f"weights-{number}", "params_b": number, "price": {"input": 1000 - number}}
        for number in range(1000)
    }
    experts = [*EXPERTS, *entries]
    config = {name: {"engine": "echo", "model": "echo", **entries.get(name, {})} for name in experts}
    backends = {name: echo.build(echo.Options(model=name)) for name in experts}
    backends["expert500"] = DisabledBackend("the key of expert500 is not set")
    async with running(backends, sections={"experts": config}) as gateway:

        async def rows(query: str) -> tuple[str, list[str]]:
            status, page, _ = await get(gateway, f"/experts{query}")
            assert status == 200, query
            return page, re.findall(r'<tr><th scope="row">([^<]+)', page)

        page, first = await rows("")
        assert first == experts[:50]
        assert "1,003 experts, page 1 of 21" in page
        assert ("Previous" in page, "Next" in page) == (False, True)
        pages = [(await rows(f"?page={number}"))[1] for number in range(1, 22)]
        assert [name for each in pages for name in each] == experts
        assert (await rows("?page=99999"))[1] == (await rows("?page=21"))[1] == experts[1000:]
        assert (await rows("?page=-1"))[1] == (await rows("?page=x&sort=x"))[1] == first
        assert (await rows("?text=WEIGHTS-77&sort=parameters"))[1][:2] == ["expert779", "expert778"]
        assert (await rows("?sort=price&text=expert"))[1][0] == "expert999"
        page, broken = await rows("?state=disabled")
        assert (broken, "1 of 1,003 experts" in page) == (["expert500"], True)
        assert (await rows("?sort=state"))[1][0] == "expert500"
        assert "No expert matches" in (await rows("?text=%3Cb%3E"))[0]


async def test_every_page_forbids_scripts_that_are_not_ours(store: Database) -> None:
    async with running(store=store) as gateway:
        for path in ("", "/decisions", "/experts", "/routers", "/spend", "/login"):
            status, page, headers = await get(gateway, path)
            assert status == 200, path
            assert "script-src 'self'; style-src 'self'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert not re.search(r"<style|style=|<script>|https?://(?!www\.w3\.org)", page) or path.startswith(
                "/static"
            )


async def test_without_a_session_every_page_is_the_login(keys: KeyStore, store: Database) -> None:
    keys.create("acme", "", Grant())
    async with running(store=store, auth=Auth(ring=KeyRing(keys))) as gateway:
        for path in ("", "/decisions", "/decisions/x", "/experts", "/routers", "/spend"):
            status, _, headers = await get(gateway, path)
            assert (status, headers["location"]) == (303, "/console/login"), path
        for path in ("/ask", "/answer", "/feedback", "/routers"):
            assert (await post(gateway, path, {}))[2]["location"] == "/console/login", path
        status, _, headers = await get(gateway, "/decisions", **{"hx-request": "true"})
        assert (status, headers["hx-redirect"]) == (401, "/console/login")
        status, page, headers = await post(gateway, "/login", {"key": "wrong"})
        assert (status, "not known here" in page, "set-cookie" in headers) == (401, True, False)
        assert gateway.log.records == []


async def test_a_session_sees_what_its_key_may_and_ends_with_it(keys: KeyStore, store: Database) -> None:
    key_id, secret = keys.create("acme", "", Grant(experts=("ruby",)))
    store.write_decisions([made(0, key_id=key_id), made(1, key_id="other/1")])
    async with running(store=store, auth=Auth(ring=KeyRing(keys))) as gateway:
        session = await log_in(gateway, secret)
        _, page, _ = await get(gateway, "/decisions?days=", **session)
        assert ("/decisions/r1-0" in page, "/decisions/r1-1" in page) == (True, False)
        assert (await get(gateway, "/decisions/r1-1", **session))[0] == 404
        assert "emerald" not in (await get(gateway, "/experts", **session))[1]
        assert (await get(gateway, "/routers", **session))[0] == 403
        assert (await post(gateway, "/routers", {}, **session))[0] == 403
        await post(gateway, "/answer", {"text": "red", "model": "ruby"}, **session)
        assert (await gateway.record()).key_id == key_id
        keys.revoke(key_id)
        await until(lambda: gateway.parts.auth.ring.version == 2)
        assert (await get(gateway, **session))[2]["location"] == "/console/login"


async def test_logging_out_takes_the_cookie_back() -> None:
    async with running(keys=[KEY]) as gateway:
        _, _, headers = await post(gateway, "/logout", {}, **await log_in(gateway, KEY))
        assert headers["set-cookie"].startswith(f'{COOKIE}=""; ')
        assert "Max-Age=0" in headers["set-cookie"]


async def test_a_cookie_that_was_changed_or_is_old_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(keys=[KEY]) as gateway:
        session = await log_in(gateway, KEY)
        digest, until_s, signature = session["cookie"].partition("=")[2].split(".")
        others = (
            f"{digest}.{int(until_s) + 1}.{signature}",
            f"{'0' * 64}.{until_s}.{signature}",
            f"{digest}.{until_s}.",
        )
        for wrong in ("", "x", "...", *others, f"\u00e9.1.{signature}", f"{digest}.x.{signature}"):
            assert (await get(gateway, cookie=f"{COOKIE}={wrong}"))[0] == 303, wrong
        assert (await get(gateway, **session))[0] == 200
        now = time.time()
        monkeypatch.setattr("coe.gateway.console.session.time.time", lambda: now + 13 * 3600)
        assert (await get(gateway, **session))[0] == 303


async def test_the_hash_of_a_text_which_its_receipt_shows_signs_no_cookie() -> None:
    async with running(keys=[KEY]) as gateway:
        content = f"{hashlib.sha256(KEY.encode()).hexdigest()}.{int(time.time()) + 60}"
        signature = keyed_hash(f"console {content}", gateway.parts.hash_key)
        assert (await get(gateway, cookie=f"{COOKIE}={content}.{signature}"))[0] == 303


async def test_a_form_of_another_page_is_refused(gateway: Running) -> None:
    for origin in ("https://evil.example", "null"):
        assert (await post(gateway, "/routers", {}, origin=origin))[0] == 403
    async with gateway.client.post(f"{gateway.root}/console/routers") as answer:
        assert answer.status == 403
        assert "without the header 'origin'" in (await answer.json())["error"]["message"]


async def test_a_page_that_may_call_the_api_may_not_act_for_who_is_logged_in() -> None:
    app = "http://localhost:3000"
    async with running(keys=[KEY], allowed_origins=[app]) as gateway:
        session = await log_in(gateway, KEY)
        status, body, _ = await post(gateway, "/routers", {}, origin=app, **{"sec-fetch-site": "same-site"}, **session)
        assert (status, "by a page of another origin" in body) == (403, True)
        own = {"sec-fetch-site": "same-origin"}
        assert (await post(gateway, "/logout", {}, **own, **session))[0] == 303


@pytest.mark.parametrize(
    ("origin", "forwarded", "is_secure"),
    [
        ("https://coe.example", {}, True),
        ("https://coe.example", {"x-forwarded-proto": "http"}, True),
        ("http://coe.example", {"x-forwarded-proto": "HTTPS, http"}, True),
        ("http://coe.example", {"x-forwarded-proto": "http"}, False),
        ("http://coe.example", {}, False),
    ],
)
async def test_a_cookie_is_for_tls_alone_where_the_browser_or_a_proxy_says_so(
    origin: str, forwarded: dict[str, str], is_secure: bool
) -> None:
    async with running(keys=[KEY], allowed_origins=[origin]) as gateway:
        _, _, headers = await post(gateway, "/login", {"key": KEY}, origin=origin, **forwarded)
        assert ("Secure" in headers["set-cookie"].split("; ")) == is_secure


async def test_only_the_console_opens_without_a_key_on_an_address_that_others_reach() -> None:
    async with running(keys=[KEY], host="0.0.0.0") as gateway, aiohttp.ClientSession() as client:
        root = gateway.root.replace("0.0.0.0", "127.0.0.1")
        for path, status in (("/console/login", 200), ("/consoles", 401), ("/metrics", 401), ("/v1/models", 401)):
            async with client.get(root + path) as answer:
                assert answer.status == status, path


async def test_it_can_be_turned_off() -> None:
    async with running(console=False) as gateway:
        status, body, _ = await get(gateway)
        assert (status, "there is no /console here" in body) == (404, True)
    async with running(console=False, keys=[KEY], host="0.0.0.0") as gateway:
        root = gateway.root.replace("0.0.0.0", "127.0.0.1")
        async with gateway.client.get(f"{root}/console") as answer:
            assert answer.status == 401


@pytest.mark.parametrize(
    ("log_e", "said"),
    [
        (-1000.0, "0 to 1"),
        (-1.0, "0.37 to 1"),
        (5.3, "200 to 1"),
        (20.0, "over 1,000,000 to 1"),
        (1e4, "over 1,000,000 to 1"),
    ],
)
def test_evidence_of_any_size_is_written_as_odds(log_e: float, said: str) -> None:
    assert odds(log_e) == said


def test_a_gateway_loads_nothing_that_it_may_never_need() -> None:
    spared = {"jinja2", "fastapi", "starlette", "python_multipart", "faiss"}
    spared |= {
        "coe.retrieval.service",
        "coe.retrieval.build_experts",
        "coe.retrieval.routing",
        "coe.retrieval.index.local",
    }
    spared |= {
        "coe.fleet.residency.controller",
        "coe.fleet.residency.scheduler",
        "coe.gateway.check",
        "coe.gateway.chat.judge",
    }
    code = f"import sys, coe.gateway.lifecycle.composition; print({spared} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
