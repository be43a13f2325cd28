"""A fault that pydantic found, in our words. Its own ("String should match pattern ...") are for programmers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from coe.base.errors import allowed_values

WORDS = {
    "missing": "required key is missing",
    "string_type": "must be text",
    "string_unicode": "must be text that UTF-8 can hold",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "none_required": "must be left out",
    "value_error": "{error}",
    "assertion_error": "{error}",
    "json_invalid": "is not JSON",
    "extra_forbidden": "is not a field that is known here",
}
"""Type of fault -> what was expected, with the numbers of the fault."""

PATTERNS = {
    r"^https?://[!-~]+$": "must begin with http:// or https://, in ASCII without spaces and line breaks",
    r"^[A-Z_][A-Z0-9_]*$": (
        "must be the name of an environment variable, of capital letters, digits and '_', such as PROVIDER_API_KEY"
    ),
    r"^[^{}]*(\{[^{}]+\}[^{}]*)?$": "may have braces around one part that is not empty, and nowhere else",
    r"^[a-z][a-z0-9_]*$": "must be of small letters, digits and '_', and begin with a letter",
    r"^[B-Z]$": "must be a capital letter from B to Z",
    r"^[0-9A-Za-z]+$": "must be of letters and digits",
    r"^[A-Za-z0-9._:-]+$": "must be of letters, digits, '.', '_', ':' and '-'",
    r"^[A-Za-z][A-Za-z0-9+.-]*://[^/\s]+$": "must be an origin, such as https://app.example.com",
    r"^[^*\s]*\*?$": "may have one '*', at its end, and no blanks",
    r"^[1-9]\d{0,2}[mhd]$": "must be a number below 1,000 of m, h or d, such as 24h",
    r"\S": "must not be blank",
    r"\w": "must hold a letter or a digit",
}
"""Pattern of a text -> what it asks for."""

CHOICES = ("enum", "literal_error")


def fault_words(fault: Mapping[str, Any]) -> str:
    """Describes a fault of a value without showing the value."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in CHOICES:
        allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"unknown value{allowed_values(str(fault['input']), allowed)}"
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"must match the pattern {context['pattern']}")
    numbers = {name: f"{value:.12g}" if isinstance(value, float) else value for name, value in context.items()}
    return WORDS.get(kind, "is not a value that is allowed here").format(**numbers)
