"""Texts that count as the same query."""

from __future__ import annotations

import re

NEITHER = re.compile(r"[\W_]+")
"""All that is neither letter nor digit."""


def normalised_text(text: str) -> str:
    """Lower-case letters and digits only; a text without any (such as '???') stays as it is, stripped."""
    return NEITHER.sub("", text.lower()) or text.strip()
