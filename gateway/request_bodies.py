"""JSON bodies of the REST part: read by one rule."""

from __future__ import annotations

import orjson

from gateway.http_errors import invalid


def check_json(raw: bytes) -> None:
    """Refuses what chat refuses too: no JSON, NaN, and lone surrogates, which Python's own reader lets through and
    neither an encoder nor an answer can hold.

    Raises:
        ApiError: 400 with what is wrong and where.
    """
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise invalid(f"the body is not valid JSON: {error.msg} ({place})", code="invalid_json") from error
