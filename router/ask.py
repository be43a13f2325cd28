"""Extracts what a person asks from a message: the text without what agent programs put around it, bounded in length."""

from __future__ import annotations

# Agent programs wrap what a person typed. The content of the first kind is dropped, the second kind is unwrapped.
DROPPED_WRAPPERS = (
    "system-reminder",
    "environment_details",
    "environment_context",
    "user_instructions",
    "additional_data",
)
OPENED_WRAPPERS = ("task", "user_query", "user_message")

CUT_MARK = "\n[...]\n"


def ask_in(text: str) -> str:
    """Extracts what a person asks from a message."""
    return unwrap(text).strip()


def unwrap(text: str) -> str:
    """The text without what agent programs put around it. Linear in the text, whatever it holds."""
    if "<" not in text:
        return text
    for name in DROPPED_WRAPPERS:
        text = without_blocks(text, f"<{name}>", f"</{name}>")
    for name in OPENED_WRAPPERS:
        start, end = text.find(f"<{name}>"), text.rfind(f"</{name}>")
        if 0 <= start < end:
            return text[start + len(name) + 2 : end]
    return text


def without_blocks(text: str, opening: str, closing: str) -> str:
    """Removes what lies between each opening and its closing; an opening that is never closed stays."""
    kept = []
    position = 0
    while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start)) >= 0:
        kept.append(text[position:start])
        position = end + len(closing)
    return "".join([*kept, text[position:]])


def cap(text: str, max_chars: int) -> str:
    """Head and tail of a text that is too long: the question is usually first or last."""
    if len(text) <= max_chars:
        return text
    half = (max_chars - len(CUT_MARK)) // 2
    return f"{text[:half]}{CUT_MARK}{text[-half:]}"
