"""Taking what identifies people, and what opens doors, out of a text, in a time that is linear in its length.

Each pattern begins at one place of a run of characters only, or reads a bounded number of them from any place, and
never steps back over a run (`++`, `*+`). What no pattern does like that is done by hand: `without_named_secrets`.
"""

from __future__ import annotations

import math
import re
from collections import Counter

EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}+@[A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+)++")
CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
DATE = re.compile(r"\d{1,4}[ ./-]\d{1,2}[ ./-]\d{1,4}(?!\d)")
PHONE = re.compile(
    r"(?<![\w+])(?:"
    r"\+\d(?:[ ().-]{0,2}\d){7,14}"  # international
    r"|\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4}"  # North American
    r"|\(?0\d{1,4}\)?[ /.-](?:[ /.-]?\d){5,10}"  # national, with a trunk zero
    r")(?!\d)"
)
CALLED_PHONE = re.compile(r"(?i)\b((?:tel|phone|mobile|cell|call|fax|whatsapp)[^\d\n]{0,16})\d{7,15}(?!\d)")
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)", re.S
)
KNOWN_KEY = re.compile(
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}|\bxox[abeprs]-[\w-]{10,}|\bhf_[A-Za-z0-9]{20,}"
)
# A JSON Web Token: three runs with dots between, of which the first has `eyJ` in it. Tried at the beginning of a run.
WEB_TOKEN = re.compile(r"(?<![\w-])(?=[\w-]{11,}+\.[\w-]{8,}+\.)([\w-]*?)\beyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]*+")
SECRET_NAME = re.compile(
    r"(?i)\b(?:pass(?:word|wd|phrase)|secret|api[ _-]?key|access[ _-]?key|auth[ _-]?token|bearer)"
    r"(?:\s*+[:=]\s*+|\s++(?:is\s++)?)"
)
VALUE = re.compile(r"[^\s,;]*+")
DIGIT = re.compile(r"\d")
KEY_STARTS = (
    *("sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    *("AKIA", "AIza", "xox", "hf_", "eyJ", "PRIVATE KEY-----"),
)
SECRET_NAMES = ("passw", "passphrase", "secret", "key", "token", "bearer")
MIN_KEY_DIGITS = 5
MIN_PHONE_DIGITS = 6
LONG_TOKEN = re.compile(r"(?<![\w+/=-])[A-Za-z0-9_+/=-]{32,}+")


def redact(text: str) -> str:
    """The text with e-mail addresses, phone and card numbers and what looks like a key replaced by their kind.

    A pattern is tried only where a literal that it needs occurs: 4,000 plain characters then take 20 us, not 450 us.
    """
    text = text.encode("utf-8", "replace").decode()  # lone surrogates could not be written as JSON
    lowered = text.lower()
    digits = sum(map(text.count, "0123456789"))
    if any(start in text for start in KEY_STARTS):
        text = KNOWN_KEY.sub("[key]", WEB_TOKEN.sub(r"\1[key]", PRIVATE_KEY.sub("[key]", text)))
    if digits and any(name in lowered for name in SECRET_NAMES):
        text = without_named_secrets(text)
    if digits >= MIN_KEY_DIGITS:
        text = LONG_TOKEN.sub(lambda match: "[key]" if is_key_like(match[0]) else match[0], text)
    if "@" in text:
        text = EMAIL.sub("[email]", text)
    if digits >= MIN_PHONE_DIGITS:
        text = CARD.sub(lambda match: "[card]" if passes_luhn(match[0]) else match[0], text)
        text = PHONE.sub(lambda match: match[0] if DATE.match(match[0]) else "[phone]", text)
        text = CALLED_PHONE.sub(r"\1[phone]", text)
    return text


def without_named_secrets(text: str) -> str:
    """The text without what follows `password:`, `api key is` and the like, where that run (up to a space, comma or
    semicolon) holds a digit. A run is looked at once, however many names lie in it."""
    kept: list[str] = []
    done = run_end = last_digit = 0
    for name in SECRET_NAME.finditer(text):
        begin = name.end()
        if name.start() < done:
            continue  # inside a value that is hidden already
        if begin >= run_end:
            run = VALUE.match(text, begin)
            assert run is not None, "it matches an empty run, too"
            run_end = run.end()
            last_digit = max((found.start() for found in DIGIT.finditer(text, begin, run_end)), default=-1)
        if begin <= last_digit:
            kept += (text[done:begin], "[key]")
            done = run_end
    return "".join((*kept, text[done:]))


def passes_luhn(number: str) -> bool:
    """Returns whether the digits end in a right check digit (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in reversed(number) if char.isdecimal()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def is_key_like(token: str) -> bool:
    """Returns whether a long run of letters and digits is random rather than a name: many digits, many different
    characters.

    The bounds (5 digits, 3 bits a character) keep hexadecimal and base64 secrets and let long file names pass (ours).
    """
    digits = sum(char.isdecimal() for char in token)
    letters = sum(char.isalpha() for char in token)
    return digits >= MIN_KEY_DIGITS and letters >= 5 and entropy_bits(token) >= 3.0


def entropy_bits(token: str) -> float:
    """Shannon entropy of the characters of `token`, bits a character."""
    shares = [count / len(token) for count in Counter(token).values()]
    return -sum(share * math.log2(share) for share in shares)
