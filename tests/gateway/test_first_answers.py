"""The first answers, against a small server that streams as the gateway does."""

from __future__ import annotations

import json

import aiohttp
from aiohttp import web

from coe.gateway.first_answers import FirstAnswer, ask, tokens_per_s
from tests.served_app import Handler, app_of, serving

HEADERS = {"x-coe-category": "code", "x-coe-confidence": "0.87", "x-coe-expert": "coder"}


async def answer_of(handler: Handler) -> FirstAnswer:
    app = app_of({"POST /v1/chat/completions": handler})
    async with serving(app) as root, aiohttp.ClientSession() as session:
        return await ask(session, f"{root}/v1", "code", "how?")


def streaming(events: list[str], headers: dict[str, str]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **headers})
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {event}\n\n".encode())
        return response

    return handle


def delta(text: str) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}}]})


async def test_an_answer_is_read_with_its_decision_and_its_speed() -> None:
    role = json.dumps({"choices": [{"delta": {"role": "assistant", "content": None}}]})
    usage = json.dumps({"choices": [], "usage": {"completion_tokens": 3}})
    answer = await answer_of(streaming([role, delta("a"), delta("b"), delta("c"), usage, "[DONE]"], HEADERS))
    assert (answer.category, answer.confidence, answer.expert) == ("code", 0.87, "coder")
    assert (answer.text, answer.problem, answer.fallback) == ("abc", None, "")
    assert answer.is_as_meant
    assert answer.ttft_ms > 0


async def test_the_log_is_told_that_it_is_no_traffic() -> None:
    marks = []

    async def answer(request: web.Request) -> web.Response:
        marks.append(request.headers.get("x-coe-probe"))
        return web.json_response({"error": {"message": "no"}}, status=503)

    await answer_of(answer)
    assert marks == ["1"]


def test_speed_is_timed_only_where_there_is_time_to_measure() -> None:
    assert tokens_per_s(21, 0.5) == 40
    assert tokens_per_s(1, 0.5) is None
    assert tokens_per_s(8, 1e-6) is None


async def test_a_fallback_is_seen_and_is_not_what_was_meant() -> None:
    headers = {**HEADERS, "x-coe-category": "general", "x-coe-fallback": "uncertain"}
    answer = await answer_of(streaming([delta("a"), "[DONE]"], headers))
    assert answer.fallback == "uncertain"
    assert not answer.is_as_meant
    assert answer.tokens_per_s is None


async def test_an_error_in_the_stream_is_the_problem() -> None:
    answer = await answer_of(streaming([delta("a"), json.dumps({"error": {"message": "expert died"}})], HEADERS))
    assert answer.problem == "expert died"
    assert not answer.is_as_meant


async def test_an_empty_answer_is_a_problem() -> None:
    assert (await answer_of(streaming(["[DONE]"], HEADERS))).problem == "the answer was empty"


async def test_an_http_error_is_told_with_its_status() -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no router is loaded"}}, status=503)

    assert (await answer_of(refuse)).problem == "HTTP 503: no router is loaded"


async def test_an_answer_that_is_not_ours_is_told_as_it_is() -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="<html>bad</html>")

    assert (await answer_of(refuse)).problem == "HTTP 502: <html>bad</html>"


async def test_nobody_listening_is_a_problem_not_an_error() -> None:
    async with aiohttp.ClientSession() as session:
        answer = await ask(session, "http://127.0.0.1:1/v1", "code", "how?")
    assert answer.problem.startswith("the connection broke")
