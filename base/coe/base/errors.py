"""One error tree. Every message has the offending value and what is allowed; none has prompt text or a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class RouterError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigError(RouterError):
    """An invalid value in experts.yaml, an option or an environment variable.

    `problems` has one line per fault, each with file, key path, value and allowed values.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class MissingWeightsError(RouterError):
    """Model weights that the configuration names are not on this machine."""


class DataError(RouterError):
    """A data file, a log row or an outcome table is malformed; the message names file, line or row, and column."""


class ArtifactError(RouterError):
    """A trained router or an adapter on disk is corrupt, tampered with, or of another shape."""


class InfeasibleBudgetError(RouterError):
    """No category-to-expert map satisfies a budget."""

    def __init__(self, budget: str, value: float, smallest: float) -> None:
        super().__init__(f"budget {budget}={value:g} cannot be met; the smallest value that would do is {smallest:g}")
        self.budget = budget
        self.value = value
        self.smallest = smallest


class NoEligibleExpertError(RouterError):
    """No expert can serve a query; `reasons` maps each expert to what rules it out."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        listed = "; ".join(f"{expert}: {reason}" for expert, reason in reasons.items())
        super().__init__(f"no expert can serve this request ({listed})")
        self.reasons = dict(reasons)


class RequestError(RouterError):
    """A request that cannot be served.

    Args:
        message: safe to show to the client: no key, no prompt text.
        status: HTTP status of the response.
        code: stable identifier for programs.
        param: field of the request that is invalid.
        retry_after_s: seconds after which a retry may succeed.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


class EngineError(RouterError):
    """A serving engine could not be started, did not become ready, or died."""


class StoreError(RouterError):
    """The decision log's spool or SQL database cannot be used.

    `is_retryable` is true when the same call may succeed later: the database is away, locked or full.
    """

    def __init__(self, message: str, *, is_retryable: bool = False) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable


class VectorSpaceError(RouterError):
    """Vectors of different encoders, or of different dimensions, that were about to be mixed."""


class BackendError(RouterError):
    """An expert's failure to return a usable answer.

    Args:
        message: what happened, safe to show to a client.
        status: HTTP status for the client: 429 rate limit, 502 broken answer, 503 unreachable, 504 timeout.
        is_retryable: true if nothing was generated yet, so that a retry cannot bill or act twice.
        retry_after_s: seconds to wait before a retry, if the expert named them.
    """

    def __init__(
        self, message: str, *, status: int = 502, is_retryable: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.is_retryable = is_retryable
        self.retry_after_s = retry_after_s


class BusyError(BackendError):
    """An expert whose request slots and waiting queue are both full. It does not count against the expert's health."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=503, is_retryable=True, retry_after_s=1.0)


ABSTAINED_STATUS, ABSTAINED = 422, "expert_abstained"
"""HTTP status and code of an answer by which an expert declines a request."""


class AbstainedError(BackendError):
    """An expert's refusal of a request, which another one may take. It does not count against the expert's health."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=ABSTAINED_STATUS, is_retryable=True)


def reason_of(error: BaseException) -> str:
    """Return one line about an error, for logs and metrics, of at most 200 characters."""
    return f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0][:200]


def allowed_values(value: str, allowed: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: `"; did you mean 'x'? allowed: x, y, z"`."""
    names = sorted(allowed)
    close = get_close_matches(value, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{hint} allowed: {', '.join(names) if names else 'none'}"


def got_value(fault: Mapping[str, Any]) -> str:
    """Return the end of a message about a pydantic fault: `" (got x)"`, or "" if x may be a misplaced key."""
    if any(str(part).startswith(("api_key", "index_url")) for part in fault["loc"]):
        return ""
    value = fault["input"]
    return f" (got {'nothing' if value is None else shorten(value)})"


def shorten(value: object) -> str:
    """Return a value's repr, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
