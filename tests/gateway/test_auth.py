"""Keys of clients: every byte counts, and what is logged of one names it."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from coe.gateway.http.auth import Auth
from coe.gateway.http_errors import ApiError

KEY = "correct-horse-battery-staple"


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {key}".encode()}


async def test_a_key_is_known_by_its_whole_hash() -> None:
    """Of a few thousand wrong keys some share the first byte of the hash, or two, and none is let in."""
    auth = Auth([KEY])
    known = hashlib.sha256(KEY.encode()).digest()
    wrong = [f"wrong-key-{number}" for number in range(4000)]
    for place in (0, 15, 31):
        near = next(key for key in wrong if hashlib.sha256(key.encode()).digest()[place] == known[place])
        with pytest.raises(ApiError) as refused:
            await auth.caller(bearer(near))
        assert refused.value.status == 401
    for key in wrong[:200]:
        with pytest.raises(ApiError):
            await auth.caller(bearer(key))


@pytest.mark.parametrize("given", [KEY[:-1], KEY + "x", KEY.upper(), "", f"{KEY},other"])
async def test_what_is_not_the_key_is_refused(given: str) -> None:
    with pytest.raises(ApiError) as refused:
        await Auth([KEY, "another-key-of-somebody"]).caller(bearer(given))
    assert KEY not in str(refused.value)


async def test_each_key_has_a_name_of_its_own() -> None:
    keys = [f"key-of-client-number-{number}" for number in range(20)]
    auth = Auth(keys)
    names = [(await auth.caller(bearer(key))).key_id for key in keys]
    assert names[0] == f"key-{hashlib.sha256(keys[0].encode()).hexdigest()}"  # owners are told apart by 256 bits
    assert all(one != two for one, two in itertools.combinations(names, 2))
    assert not any(key in str(name) for key, name in zip(keys, names, strict=True))
