"""Fixtures that the tests of reports share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_bundle() -> Iterator[None]:
    """Vega's bundle is the same on every page and takes a second or more to make, so it is made once."""
    import vl_convert

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "javascript_bundle", cache(vl_convert.javascript_bundle))
        yield
