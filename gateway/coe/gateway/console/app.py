"""The console's pages. Each one asks the API, and shows what came; without scripts they are links and forms."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, Router

from coe.gateway.console.session import COOKIE, LIFE_S, Sessions
from coe.gateway.console.views import ORDERS, environment, expert_page, explained
from coe.gateway.http.asgi import Receive, Scope, Send
from coe.gateway.http.auth import Auth
from coe.gateway.http.inner_request import Api, Inner
from coe.gateway.http_errors import ApiError
from coe.router.section import AUTO

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
POLICY += "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
STATIC = {"console.css": "text/css", "icon.svg": "image/svg+xml", "htmx-2.0.10.min.js": "text/javascript"}
FILTERS = ("category", "expert", "policy", "state", "feedback", "doubt", "router_version", "conversation")
SAME_ORIGIN = b"same-origin"
PAGE_ROWS = 50
DAY_S = 86_400.0

Page = Callable[[Request, Api], Awaitable[Response]]


class Console:
    """An application below `/console`.

    Args:
        gateway: answers requests of the API; one whose scope has a caller needs no key.
        auth: knows the keys.
        hash_key: signs cookies.
    """

    def __init__(self, gateway: Inner, auth: Auth, hash_key: bytes) -> None:
        self._gateway, self._auth = gateway, auth
        self._sessions = Sessions(auth, hash_key)
        self._templates = environment()
        open_routes = [
            Route("/login", self._login, methods=["GET"]),
            Route("/login", self.log_in, methods=["POST"]),
            Route("/static/{name}", show_static, methods=["GET"]),
        ]
        pages: list[tuple[str, str, Page]] = [
            ("GET", "/", self.playground),
            ("POST", "/ask", self.ask),
            ("POST", "/answer", self.answer),
            ("POST", "/feedback", self.rate),
            ("GET", "/decisions", self.decisions),
            ("GET", "/decisions/{decision_id}", self.decision),
            ("GET", "/experts", self.experts),
            ("GET", "/routers", self.routers),
            ("POST", "/routers", self.change_router),
            ("GET", "/certificate", self.certificate),
            ("GET", "/spend", self.spend),
            ("POST", "/logout", self.log_out),
        ]
        closed = [Route(path, self._page(page), methods=[method]) for method, path, page in pages]
        self._router = Router([Mount("/console", routes=[*open_routes, *closed])], redirect_slashes=False)

    async def __call__(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        if scope["method"] == "POST" and b"origin" not in headers:  # browsers send it; whose it is, was checked before
            raise ApiError("a form of the console was sent without the header 'origin'", status=403)
        # A page of gateway.allowed_origins may call the API with a key of its own, not act for who has logged in here.
        if scope["method"] == "POST" and headers.get(b"sec-fetch-site", SAME_ORIGIN) != SAME_ORIGIN:
            raise ApiError("a form of the console was sent by a page of another origin", status=403)
        caller = await self._sessions.caller(headers)
        api = None if caller is None else Api(self._gateway, scope, receive, caller)
        path = "/console/" if scope["path"] == "/console" else scope["path"]
        inner = {**scope, "path": path, "state": {"api": api}, "app": self}
        try:
            await self._router(inner, receive, send)
        except HTTPException as error:
            known = {404: "There is no such page.", 405: "That page takes no such request."}
            page = self._show(Request(inner), "error", error.status_code, message=known.get(error.status_code, ""))
            await page(inner, receive, send)

    def _page(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """A page for those who have logged in; a refusal of the API becomes a page that says so."""

        async def shown(request: Request) -> Response:
            api: Api | None = request.state.api
            if api is None:
                return to_login(request)
            try:
                return await page(request, api)
            except ApiError as failure:
                return self._show(request, "error", failure.status, message=failure.message)

        return shown

    def _show(self, request: Request, name: str, status: int = 200, /, **values: object) -> Response:
        api: Api | None = request.state.api
        template = self._templates.get_template(f"{name}.html.jinja")
        shown = template.render(caller=None if api is None else api.caller, page=name, now=time.time(), **values)
        return HTMLResponse(shown, status, HEADERS)

    async def _login(self, request: Request, status: int = 200, problem: str = "") -> Response:
        return self._show(request, "login", status, problem=problem)

    async def log_in(self, request: Request) -> Response:
        cookie = self._sessions.begin((await fields(request)).get("key", "").strip())
        if cookie is None:
            return await self._login(request, 401, "That key is not known here, or has expired.")
        answer = RedirectResponse("/console", 303, HEADERS)
        # As the browser sees it, before any proxy, or as a proxy says. Who lies about it gets no cookie on plain http.
        seen = (request.headers["origin"].partition(":")[0], request.headers.get("x-forwarded-proto", ""))
        is_tls = any(scheme.strip().lower() == "https" for part in seen for scheme in part.split(","))
        answer.set_cookie(COOKIE, cookie, LIFE_S, path="/console", secure=is_tls, httponly=True, samesite="strict")
        return answer

    async def log_out(self, request: Request, api: Api) -> Response:
        answer = RedirectResponse("/console/login", 303, HEADERS)
        answer.delete_cookie(COOKIE, path="/console", httponly=True, samesite="strict")
        return answer

    async def playground(self, request: Request, api: Api) -> Response:
        return self._show(request, "playground", models=await names_of(api), asked={}, columns=[])

    async def ask(self, request: Request, api: Api) -> Response:
        """Shows where a text would be routed at once; each column then asks for its own answer."""
        asked = await fields(request)
        text, model = asked.get("text", "").strip(), asked.get("model", AUTO)
        columns = [name for name in (model, asked.get("beside")) if name]
        routed, problem = None, ""
        try:
            routing = model if model.partition(":")[0] == AUTO else AUTO
            reply = await api.post("/v1/route", {"text": text, "model": routing})
            routed = explained(reply.json)
        except ApiError as failure:
            problem = failure.message
        values = {"models": await names_of(api), "asked": asked | {"text": text}, "columns": columns}
        return self._show(request, "playground", **values, routed=routed, problem=problem)

    async def answer(self, request: Request, api: Api) -> Response:
        """One column: an answer, and the receipt of its decision."""
        asked = await fields(request)
        body = {"model": asked.get("model", AUTO), "messages": [{"role": "user", "content": asked.get("text", "")}]}
        try:
            reply = await api.post("/v1/chat/completions", body)
        except ApiError as failure:
            return self._show(request, "answer", asked=asked, problem=failure.message)
        receipt = await api.get(f"/v1/decisions/{reply.headers['x-coe-decision-id']}")
        return self._show(request, "answer", asked=asked, text=text_of(reply.json), receipt=receipt)

    async def rate(self, request: Request, api: Api) -> Response:
        given = await fields(request)
        decision_id, value = given.get("decision_id", ""), float(given.get("value") == "1")
        await api.post("/v1/feedback", {"decision_id": decision_id, "kind": "thumb", "value": value})
        if is_htmx(request):
            return self._show(request, "rated", decision_id=decision_id, value=value)
        return RedirectResponse(f"/console/decisions/{quote(decision_id, safe='')}", 303, HEADERS)

    async def decisions(self, request: Request, api: Api) -> Response:
        query = {name: value for name, value in request.query_params.items() if value or name == "days"}
        found = await api.get("/v1/decisions", **asked_of(query), limit=PAGE_ROWS)
        values = {"models": await names_of(api), "query": query, "link": partial(link, query)}
        return self._show(request, "decisions", found=found, is_live=query.get("live") == "1", **values)

    async def decision(self, request: Request, api: Api) -> Response:
        receipt = await api.get(f"/v1/decisions/{request.path_params['decision_id']}")
        return self._show(request, "decision", receipt=receipt)

    async def experts(self, request: Request, api: Api) -> Response:
        query = {name: request.query_params.get(name, "") for name in ("text", "state", "sort", "page")}
        found = expert_page((await api.get("/v1/experts"))["data"], query)
        values = {"query": query, "orders": ORDERS, "link": partial(link, query, "experts")}
        return self._show(request, "experts", found=found, **values)

    async def routers(self, request: Request, api: Api) -> Response:
        return self._show(request, "routers", state=await api.get("/v1/admin/routers"))

    async def certificate(self, request: Request, api: Api) -> Response:
        return self._show(request, "certificate", made=(await api.get("/v1/admin/routers"))["certificate"])

    async def change_router(self, request: Request, api: Api) -> Response:
        given, root = await fields(request), "/v1/admin/routers"
        match given.get("action"):
            case "promote":
                await api.post(f"{root}/{given.get('version')}/promote")
            case "try":
                await api.post(f"{root}/{given.get('version')}/try", {"canary": {}})
            case _:
                await api.post(f"{root}/rollback")
        return RedirectResponse("/console/routers", 303, HEADERS)

    async def spend(self, request: Request, api: Api) -> Response:
        days = request.query_params.get("days", "30")
        spent = await api.get("/v1/spend", since=since(days) or 0.0)
        return self._show(request, "spend", spent=spent["data"], days=days)


def show_static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    content = (files("coe.gateway.console") / "static" / name).read_bytes()
    kept = HEADERS | {"cache-control": "no-cache", "etag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'}
    if request.headers.get("if-none-match") == kept["etag"]:
        return Response(status_code=304, headers=kept)
    return Response(content, media_type=STATIC[name], headers=kept)


def to_login(request: Request) -> Response:
    if is_htmx(request):
        return Response(status_code=401, headers=HEADERS | {"hx-redirect": "/console/login"})
    return RedirectResponse("/console/login", 303, HEADERS)


def is_htmx(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"


async def fields(request: Request) -> dict[str, str]:
    return {name: value for name, value in (await request.form()).items() if isinstance(value, str)}


def text_of(answer: Any) -> str:
    """The text of a chat's answer; '' where an expert gave none, or something else."""
    match answer:
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            return text
        case _:
            return ""


async def names_of(api: Api) -> dict[str, list[str]]:
    """Names that `model` may have: those that route, and the experts."""
    cards = (await api.get("/v1/models"))["data"]
    routing = [card["id"] for card in cards if card["owned_by"].startswith("coe")]
    return {"routing": routing, "experts": [card["id"] for card in cards if card["id"] not in routing]}


def asked_of(query: Mapping[str, str]) -> dict[str, object]:
    """Parameters of the list that a page's address asks for."""
    filters: dict[str, object] = {name: query[name] for name in (*FILTERS, "after") if query.get(name)}
    if query.get("probes") != "1":
        filters["probe"] = "false"
    begin = since(query.get("days", "7"))
    return filters if begin is None else filters | {"since": begin}


def since(days: str) -> float | None:
    """The time so many days ago; None for all time, and for what is not a number of days."""
    return time.time() - int(days) * DAY_S if days.isdecimal() and len(days) < 6 else None


def link(query: Mapping[str, str], page: str = "decisions", /, **changes: str) -> str:
    """The address of a list like this one; what is '' is left out."""
    kept = {name: value for name, value in {**query, **changes}.items() if value or name == "days"}
    return f"/console/{page}?{urlencode(kept)}"
