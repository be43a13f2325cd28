"""The router as a library."""

from __future__ import annotations

from pathlib import Path

import pytest

from coe.base.errors import RequestError
from coe.router import Router
from tests.training.trained_folder import make_trained


def test_a_text_that_is_not_unicode_is_a_request_error(tmp_path: Path) -> None:
    folder = make_trained(tmp_path)
    router = Router.load(folder / "experts.yaml", folder / "data")
    assert router.route(" hello ").expert
    for ask in (router.route, router.categories):
        with pytest.raises(RequestError, match="text: character 2 is half of a surrogate pair; allowed: Unicode text"):
            ask("a \udcff b")
