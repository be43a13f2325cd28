"""Errors as clients see them: OpenAI's shape, the right status, Retry-After where another try may work.

`api_error` is the one way from an exception to what a client gets.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Collection

from coe.base.errors import (
    ABSTAINED,
    AbstainedError,
    BackendError,
    BusyError,
    ConfigError,
    NoEligibleExpertError,
    RequestError,
    StoreError,
    VectorSpaceError,
)
from coe.base.json_text import to_json
from coe.decision_log.decision_record import OUR_FAULTS
from coe.fleet.calls.backend import RETRY_AFTER_S

CLIENT_GONE_STATUS = 499  # nginx's number for a client that left first; it never travels
MAX_UPSTREAM_MESSAGE_CHARS = 2000
CODE = re.compile(r"[\w.:/-]{1,64}", re.ASCII)
UNREACHABLE, BUSY = "expert_unreachable", "expert_busy"
UNSENT = (UNREACHABLE, BUSY, ABSTAINED)
"""Codes of failures where the expert got nothing, or left it to others."""

RATE_LIMITED, OUT_OF_QUOTA = "expert_rate_limited", "expert_out_of_quota"
CREDENTIALS, WRONG_ENTRY = "expert_credentials", "expert_misconfigured"
OF_ENTRY = (CREDENTIALS, WRONG_ENTRY)
"""Codes of failures that only somebody who changes an expert's key or entry ends."""

TOO_LONG = "context_length_exceeded"  # the code by which clients know that they must shorten a conversation

logger = logging.getLogger(__name__)

TYPE_OF_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def type_of(status: int) -> str:
    """The class of errors that a status is of."""
    return TYPE_OF_STATUS.get(status, "api_error" if status >= 500 else "invalid_request_error")


class ClientGoneError(Exception):
    """The client closed its connection before the answer was complete."""


class ApiError(RequestError):
    """An error on its way to a client.

    Args:
        error_type: OpenAI's class of errors; by default the one of the status.
        cooldown_s: seconds for which the expert wants no requests.
        is_retryable: another expert may be tried, nothing was generated.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        error_type: str | None = None,
        retry_after_s: float | None = None,
        cooldown_s: float | None = None,
        is_retryable: bool = False,
    ) -> None:
        super().__init__(message, status=status, code=code, param=param, retry_after_s=retry_after_s)
        self.message = message
        self.error_type = error_type or type_of(status)
        self.cooldown_s, self.is_retryable = cooldown_s, is_retryable
        self.more_headers: dict[str, str] = {}
        self.expert: str | None = None  # the one that failed, once it is known
        self.is_logged = True  # False: the log has enough of its kind

    @property
    def logged(self) -> str:
        """The code as the log has it; the type where an expert sends none."""
        return code_of(self.code, self.error_type)

    @property
    def cause(self) -> str:
        """The code of an expert's failure; a rate limit has one for all providers."""
        return RATE_LIMITED if self.status == 429 and self.code != OUT_OF_QUOTA else self.logged

    def after(self, failed: Collection[str]) -> ApiError:
        """This error, which is that of the expert tried last, with the names of those that failed before it."""
        self.message = f"{self.message} (before it failed: {', '.join(failed)})"
        self.args = (self.message,)
        return self

    @property
    def values(self) -> dict[str, object]:
        """The error in OpenAI's form."""
        found = {"message": self.message, "type": self.error_type, "param": self.param, "code": self.code}
        return {"error": found}

    @property
    def body(self) -> bytes:
        return to_json(self.values)

    @property
    def headers(self) -> dict[str, str]:
        headers = dict(self.more_headers)
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        return headers


def not_ours(code: object) -> object:
    """A code that an expert sends; None for one of the gateway's own, which says something else when an expert, such as
    another gateway, sends it."""
    is_ours = isinstance(code, str) and (code in OUR_FAULTS or code.startswith("expert_"))
    return None if is_ours else code


def code_of(*given: object) -> str:
    """The first of these that is a code. What an expert sends in its place may be text, and quote the prompt."""
    codes = (str(each) for each in given if each and isinstance(each, str | int))
    return next((each for each in codes if CODE.fullmatch(each)), "expert_error")


class FaultError(ApiError):
    """An unforeseen error. Its cause may hold prompt text, so only its type is logged."""

    def __init__(self, cause: BaseException, request_id: str) -> None:
        super().__init__("internal error", status=500, code="gateway_fault")
        logger.error("request %s met an unforeseen %s", request_id, type(cause).__name__)


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A 400 that names a field."""
    return ApiError(message, param=param, code=code)


def no_key(message: str) -> ApiError:
    return ApiError(message, status=401, code="invalid_api_key")


def not_now(message: str, code: str, status: int = 503) -> ApiError:
    """An error that another try, a moment later, may not meet."""
    return ApiError(message, status=status, code=code, retry_after_s=RETRY_AFTER_S)


def shutting_down() -> ApiError:
    return not_now("the gateway is stopping", "server_shutting_down")


def not_here(path: str) -> ApiError:
    below = "" if path.startswith("/v1/") else "; the API is below /v1, which the base URL of most clients ends with"
    return ApiError(f"there is no {path[:100]} here{below}", status=404, code="not_found")


def method_not_allowed(method: str, allowed: str) -> ApiError:
    error = ApiError(
        f"method {method[:16]} is not allowed here; allowed: {allowed}", status=405, code="method_not_allowed"
    )
    error.more_headers["allow"] = allowed
    return error


def api_error(error: BaseException, expert: str | None = None, request_id: str = "") -> ApiError:
    """An exception as the error that a client gets; of a BackendError with the name of the expert that failed."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BackendError):
        code = {429: RATE_LIMITED, 503: UNREACHABLE, 504: "expert_timeout"}.get(error.status, "expert_broken_answer")
        if isinstance(error, BusyError | AbstainedError):
            code = BUSY if isinstance(error, BusyError) else ABSTAINED
        wait_s = error.retry_after_s
        if wait_s is None and error.status == 503:
            wait_s = RETRY_AFTER_S
        return ApiError(
            named(str(error), expert),
            status=error.status,
            code=code,
            retry_after_s=wait_s,
            is_retryable=error.is_retryable,
        )
    if isinstance(error, RequestError):
        return ApiError(
            str(error), status=error.status, code=error.code, param=error.param, retry_after_s=error.retry_after_s
        )
    if isinstance(error, NoEligibleExpertError):
        return ApiError(str(error), code="no_eligible_expert", param="messages")
    if isinstance(error, StoreError):
        return not_now(str(error), "store_unavailable")
    if isinstance(error, VectorSpaceError):
        return ApiError(str(error), status=409, code="other_vector_space")
    if isinstance(error, ConfigError):
        return ApiError(str(error), status=500, code="misconfigured")
    if isinstance(error, ClientGoneError):
        return ApiError("the client left", status=CLIENT_GONE_STATUS, code="client_gone")
    if isinstance(error, asyncio.CancelledError):
        return shutting_down()
    return FaultError(error, request_id)


def named(message: str, expert: str | None) -> str:
    """A message that begins with "the expert" with its name instead; others after the name."""
    if expert is None or message.startswith(f"expert {expert}"):
        return message
    rest = message.removeprefix("the expert")
    return f"expert {expert}{rest}" if rest != message else f"expert {expert}: {message}"
