"""The endpoints on FastAPI: everything but chats and gateway/plain.py. Loaded when somebody first asks for one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Signature, signature
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.routing import Match

from coe.base.errors import RouterError
from coe.gateway.asgi import Scope, error_answer
from coe.gateway.endpoints import (
    admin,
    batches,
    decisions,
    embeddings,
    evaluations,
    experts,
    feedback,
    files,
    rerank,
    route,
    routers,
    spend,
    vector_stores,
)
from coe.gateway.endpoints.access import validation_error
from coe.gateway.endpoints.retrieval_access import RetrievalDesk
from coe.gateway.exchange import request_id_of
from coe.gateway.http_errors import ApiError, ClientGoneError, api_error, method_not_allowed, not_here
from coe.gateway.parts import Parts
from coe.gateway.plain import PLAIN, Plain

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MODULES = (
    route,
    decisions,
    feedback,
    evaluations,
    embeddings,
    rerank,
    files,
    batches,
    vector_stores,
    admin,
    routers,
    experts,
    spend,
)


def create_rest(parts: Parts) -> FastAPI:
    """The application over parts that endpoints ask for by name (gateway/endpoints/access.py). The interactive docs
    stay off: their pages load scripts from elsewhere."""
    app = FastAPI(title="coe", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    log, sink, admission, session_id = parts.retrieval_log, parts.sink, parts.admission, parts.decider.session_id
    desk = RetrievalDesk(log, sink, admission, lambda: parts.is_stopping, session_id, parts.limits)
    app.state = State(vars(parts) | {"retrieval_desk": desk})
    for path, plain in PLAIN.items():
        app.add_api_route(path, described(plain), response_model=plain.model)
    for module in MODULES:
        app.include_router(module.api)

    async def on_error(request: Request, error: Exception) -> Any:
        request_id = request_id_of(dict(request.scope["headers"]))
        found = api_error(framework_error(app, request, error), request_id=request_id)
        parts.metrics.failed(found)
        return error_answer(found)

    for kind in (RouterError, RequestValidationError, HTTPException, ClientGoneError, Exception):
        app.add_exception_handler(kind, on_error)
    return app


def described(plain: Plain) -> Callable[[], None]:
    """An endpoint for `/openapi.json` alone: gateway/app.py answers its path without FastAPI."""

    @wraps(plain.answer)
    def endpoint() -> None:
        raise NotImplementedError

    _, _, *named = signature(plain.answer).parameters.values()
    endpoint.__signature__ = Signature(named)  # type: ignore[attr-defined]
    return endpoint


def framework_error(app: FastAPI, request: Request, error: Exception) -> Exception:
    """An error that FastAPI raised, as one of ours; others as they are."""
    if isinstance(error, RequestValidationError):
        return validation_error(error.errors(), error.body)
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == 405:
        return method_not_allowed(request.method, ", ".join(allowed_methods(app, request.scope)))
    if error.status_code == 404:
        return not_here(request.url.path)
    return ApiError("the request is not valid", status=error.status_code, code="invalid_request")


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that a path takes. Starlette names those of one route only, and several may share a path."""

    def is_served(method: str) -> bool:
        return any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)

    served = [method for method in METHODS if is_served(method)]
    return ["HEAD", *served] if "GET" in served else served  # HEAD is answered as GET
