"""Privacy of a logged query, by level: `none` no text and no hash, `hash` keyed hashes, `text` a redacted text.

Redaction removes what identifies people and what grants access, in time linear in the text's length. Each pattern
starts only at the beginning of a run of characters, or reads a bounded number of them. None backtracks over a run
(`++`, `*+`). `without_named_secrets` does by hand what no pattern can do like that.
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
"""Number of characters of a search that a row stores."""

SESSION_HEADERS = (b"x-session-id", b"session-id", b"session_id", b"x-claude-code-session-id")
"""Headers that name a session: ours, then those of Codex, of Codex before 2026, and of Claude Code."""

KEY_NAME = "log.key"
KEY_BYTES = 32
SESSION_DIGITS = 16


def new_decision_id() -> str:
    """Return an id that nobody can guess.

    It begins with the time, so that new rows are neighbours in the database's index; random ids would change a page
    each.
    """
    return f"dec-{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"


def tenant_of(key_id: str | None) -> str:
    """Return the team of a key id `TEAM/ID`, the id itself for a key of COE_API_KEYS, or '' without keys."""
    return "" if key_id is None else key_id.partition("/")[0]


def kept_fields(record: DecisionRecord, level: PrivacyLevel, key: bytes) -> dict[str, object]:
    """Return the fields whose logged value differs from the record's: the shortened decision, and `private_fields`."""
    changes = private_fields(record, level, key)
    return (
        changes if record.decision is None else {**changes, "decision": brief(record.decision, (record.served_expert,))}
    )


def private_fields(record: DecisionRecord, level: PrivacyLevel, key: bytes) -> dict[str, object]:
    """Return the private fields as logged. `text_hash` is of the text before redaction, so that equal asks stay equal.

    `session_id` is already a keyed hash, of the client's name for the conversation or of how it began; so is the hash
    of features. Both link asks, which `none` forbids, unless the embedding itself is logged. The name of a tool is
    treated like the text.

    Args:
        key: of the keyed hash; without it nobody can test a guess of what was asked.
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
    """Return the HMAC-SHA-256 of a text in hexadecimal (RFC 2104)."""
    return hmac.digest(key, text.encode("utf-8", "replace"), "sha256").hex()


def named_session(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the session that the first of SESSION_HEADERS names; None if there is none."""
    if headers.keys().isdisjoint(SESSION_HEADERS):
        return None
    header = next((value for name in SESSION_HEADERS if (value := headers.get(name))), b"")
    named = header[:MAX_SESSION_BYTES].decode("latin-1")
    return f"named:{named}" if named else None


def session_of(tenant: str, name: str) -> str:
    """Return a session's name made unique by its tenant; unchanged if there are no keys."""
    return f"{tenant}/{name}" if tenant else name


def session_hash(name: str, key: bytes) -> str:
    """Return a session's name in the log: the first digits of its keyed hash, enough to be unique."""
    return keyed_hash(name, key)[:SESSION_DIGITS]


def load_key(data_dir: Path) -> bytes:
    """Return the key of this data folder's hashes; it is created on first use, readable only by its owner.

    Raises:
        ConfigError: the file cannot be read or created, or has no key.
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
    """Write a new key atomically; if two processes try at once, one wins. May raise OSError."""
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
    """Replace e-mail addresses, phone and card numbers and likely keys by their kind, such as `[email]`.

    A pattern is tried only if a literal that it needs occurs: 4,000 plain characters then take 20 us, not 450 us.
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
    """Replace the value after `password:`, `api key is` and the like by `[key]`, if it contains a digit.

    The value is a run up to a space, comma or semicolon. Each run is read once, however many names it contains.
    """
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
    """Return whether the digits end in a valid check digit (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in reversed(number) if char.isdecimal()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def is_key_like(token: str) -> bool:
    """Return whether a long run of letters and digits looks random: many digits and many different characters.

    The bounds (5 digits, 3 bits per character) match hexadecimal and base64 secrets, and not long file names (our
    choice).
    """
    digits = sum(char.isdecimal() for char in token)
    letters = sum(char.isalpha() for char in token)
    return digits >= MIN_KEY_DIGITS and letters >= 5 and entropy_bits(token) >= 3.0


def entropy_bits(token: str) -> float:
    """Return the Shannon entropy of the characters of `token`, in bits per character."""
    shares = [count / len(token) for count in Counter(token).values()]
    return -sum(share * math.log2(share) for share in shares)
