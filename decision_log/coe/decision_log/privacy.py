"""Privacy of a logged query, by level: `none` no text and no hash, `hash` keyed hashes, `text` a redacted text.

Redaction takes what identifies people, and what opens doors, out of a text, in a time that is linear in its length.
Each pattern begins at one place of a run of characters only, or reads a bounded number of them from any place, and
never steps back over a run (`++`, `*+`). What no pattern does like that is done by hand: `without_named_secrets`.
"""

from __future__ import annotations

import hmac
import math
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from coe.base.errors import ConfigError
from coe.decision_log.decision_record import DecisionRecord
from coe.router.brief_decision import brief
from coe.router.config.log import PrivacyLevel

MAX_SESSION_BYTES = 256
MAX_SEARCH_CHARS = 4000
"""Of a search, as much as a row keeps."""

SESSION_HEADERS = (b"x-session-id", b"session-id", b"session_id", b"x-claude-code-session-id")
"""Ours first, then those of Codex, of Codex before 2026, and of Claude Code."""

KEY_NAME = "log.key"
KEY_BYTES = 32
SESSION_DIGITS = 16


def new_decision_id() -> str:
    """An id that nobody can guess. It begins with the time, so that new rows are neighbours in the database's index,
    where ids by chance would change a page each."""
    return f"dec-{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"


def tenant_of(key_id: str | None) -> str:
    """The team of a key id `TEAM/ID`; of a key of COE_API_KEYS, which has no team, the id itself; '' without keys."""
    return "" if key_id is None else key_id.partition("/")[0]


def kept_fields(record: DecisionRecord, level: PrivacyLevel, key: bytes) -> dict[str, object]:
    """The fields that the log keeps otherwise than the record has them: a decision among many experts in brief, and
    what is private. Args as of `private_fields`."""
    changes = private_fields(record, level, key)
    return (
        changes if record.decision is None else {**changes, "decision": brief(record.decision, (record.served_expert,))}
    )


def private_fields(record: DecisionRecord, level: PrivacyLevel, key: bytes) -> dict[str, object]:
    """The private fields as the log keeps them. `text_hash` is of the text before redaction, so equal asks stay equal.

    `session_id` is a keyed hash already, of what the client called the conversation or of how it began, and so is the
    hash of the features. They link asks to each other, which `none` rules out, unless the embedding itself is kept.
    The name of a tool is kept as the text is.

    Args:
        key: of the keyed hash; without it a guess of what was asked cannot be tested.
    """
    changes: dict[str, object] = {}
    if record.loop is not None and level is not PrivacyLevel.TEXT:
        tool = "" if level is PrivacyLevel.NONE else session_hash(record.loop.tool, key)
        changes["loop"] = replace(record.loop, tool=tool)
    if level is PrivacyLevel.NONE:
        inputs = record.inputs
        if inputs is not None and record.embedding is None:
            inputs = inputs.model_copy(update={"features": ""})
        return changes | {"text": None, "text_hash": None, "session_id": None, "inputs": inputs}
    if record.text is None:
        return changes
    text = redact(record.text) if level is PrivacyLevel.TEXT else None
    return changes | {"text": text, "text_hash": keyed_hash(record.text, key)}


def keyed_hash(text: str, key: bytes) -> str:
    """HMAC-SHA-256 in hexadecimal (RFC 2104)."""
    return hmac.digest(key, text.encode("utf-8", "replace"), "sha256").hex()


def named_session(headers: Mapping[bytes, bytes]) -> str | None:
    """Identity of the conversation that the first of SESSION_HEADERS names; None where there is none."""
    if headers.keys().isdisjoint(SESSION_HEADERS):
        return None
    header = next((value for name in SESSION_HEADERS if (value := headers.get(name))), b"")
    named = header[:MAX_SESSION_BYTES].decode("latin-1")
    return f"named:{named}" if named else None


def session_of(tenant: str, name: str) -> str:
    """A conversation's name among those of all tenants; as it is where there are no keys."""
    return f"{tenant}/{name}" if tenant else name


def session_hash(name: str, key: bytes) -> str:
    """Name of a conversation in the log: enough digits of the keyed hash of its name to tell it from others."""
    return keyed_hash(name, key)[:SESSION_DIGITS]


def load_key(data_dir: Path) -> bytes:
    """The key of this data folder's hashes, made on first use and readable by its owner only.

    Raises:
        ConfigError: the file cannot be read or made, or holds no key.
    """
    path = data_dir / KEY_NAME
    try:
        if not path.exists():
            create_key(path)
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read or made ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not a key of {KEY_BYTES} bytes in hexadecimal") from error
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path}: holds {len(key)} bytes; a key has {KEY_BYTES}")
    return key


def create_key(path: Path) -> None:
    """Writes a new key whole or not at all; of two processes that try at once, one wins. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{KEY_NAME}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(KEY_BYTES).encode())
        os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.close(descriptor)
        temporary.unlink()


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
