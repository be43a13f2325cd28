"""Vega's bundle is made once for the pages of all tests here."""

from __future__ import annotations

from tests.eval.conftest import one_bundle

__all__ = ["one_bundle"]
