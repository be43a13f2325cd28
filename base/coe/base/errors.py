"""One error tree. Every message holds the offending value and what was allowed; none holds prompt text or a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class RouterError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigError(RouterError):
    """experts.yaml, an option or an environment variable is wrong.

    `problems` holds one line per fault, each naming file, key path, value and allowed values.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class MissingWeightsError(RouterError):
    """Model weights named by configuration are not on this machine."""


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
    """Every expert was ruled out for a query; `reasons` says what each lacks."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        listed = "; ".join(f"{expert}: {reason}" for expert, reason in reasons.items())
        super().__init__(f"no expert can serve this request ({listed})")
        self.reasons = dict(reasons)


class RequestError(RouterError):
    """A request that cannot be served.

    Args:
        message: safe to show to the client: no key, no prompt text.
        status: HTTP status that says the same.
        code: stable, for programs.
        param: field of the request that is wrong.
        retry_after_s: seconds after which another try may succeed.
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
    """Vectors of one encoder were about to meet those of another, or have another number of dimensions."""


class BackendError(RouterError):
    """An expert did not give a usable answer.

    Args:
        message: what happened, safe to show to a client.
        status: HTTP status the client should see (429 rate limit, 502 broken answer, 503 unreachable, 504 too
            late).
        is_retryable: true when nothing was generated yet, so another try cannot bill or act twice.
        retry_after_s: seconds to wait before another try, when the expert named them.
    """

    def __init__(
        self, message: str, *, status: int = 502, is_retryable: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.is_retryable = is_retryable
        self.retry_after_s = retry_after_s


class BusyError(BackendError):
    """An expert has all the requests that it may have, and as many wait as may. It says nothing against the expert."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=503, is_retryable=True, retry_after_s=1.0)


ABSTAINED_STATUS, ABSTAINED = 422, "expert_abstained"


class AbstainedError(BackendError):
    """An expert leaves a request to others, without any work on it. It says nothing against the expert."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=ABSTAINED_STATUS, is_retryable=True)


def reason_of(error: BaseException) -> str:
    """One line about an error, for logs and metrics."""
    return f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0][:200]


def allowed_values(value: str, allowed: Iterable[str]) -> str:
    """`"; did you mean 'x'? allowed: x, y, z"`: the tail of every message about a name that does not resolve."""
    names = sorted(allowed)
    close = get_close_matches(value, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{hint} allowed: {', '.join(names) if names else 'none'}"


def got_value(fault: Mapping[str, Any]) -> str:
    """`" (got x)"`: the tail of every message about a pydantic fault; empty where x may be a secret: people often put a
    key where the name of its variable belongs."""
    if any(str(part).startswith(("api_key", "index_url")) for part in fault["loc"]):
        return ""
    value = fault["input"]
    return f" (got {'nothing' if value is None else shorten(value)})"


def shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
