"""The models that an OpenAI-compatible endpoint lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from base.errors import EngineError

TIMEOUT = aiohttp.ClientTimeout(total=10.0)


class KeyRefusedError(EngineError):
    """The endpoint wants a key, or another one than was sent."""


async def listed_models(url: str, key: str | None) -> dict[str, Mapping[str, Any]]:
    """Entries of `GET URL/models` by the id of each model.

    Args:
        url: API root, e.g. http://10.0.0.7:8000/v1, whose query goes with the request.

    Raises:
        KeyRefusedError: status 401 or 403.
        EngineError: no answer, another status, or not a list of models.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    root = URL(url)
    address = (root / "models").with_query(root.query)  # as chats get there
    session = aiohttp.ClientSession(timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())
    try:
        async with session, session.get(address, headers=headers, allow_redirects=False) as answer:
            if answer.status != 200:
                kind = KeyRefusedError if answer.status in (401, 403) else EngineError
                raise kind(f"{address} answered with status {answer.status}")
            return {str(each["id"]): each for each in (await answer.json(content_type=None))["data"]}
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError(f"{url} does not answer ({type(error).__name__})") from error
    except (ValueError, LookupError, TypeError) as error:
        raise EngineError(f"{address} is not a list of models") from error
