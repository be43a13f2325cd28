"""Privacy of a logged query, by level: `none` no text and no hash, `hash` keyed hashes, `text` a redacted text."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from base.errors import ConfigError
from decision_log.decision_record import DecisionRecord
from decision_log.redaction import redact
from router.log_config import PrivacyLevel

MAX_SESSION_BYTES = 256
MAX_SEARCH_CHARS = 4000
"""Of a search, as much as a row keeps."""

SESSION_HEADERS = (b"x-session-id", b"session-id", b"session_id", b"x-claude-code-session-id")
"""Ours first, then those of Codex, of Codex before 2026, and of Claude Code."""

KEY_NAME = "log.key"
KEY_BYTES = 32
SESSION_DIGITS = 16


def apply_privacy(record: DecisionRecord, level: PrivacyLevel, key: bytes) -> DecisionRecord:
    """The record as the log may keep it. `text_hash` is of the text before redaction, so equal asks stay equal.

    `session_id` is a keyed hash already, of what the client called the conversation or of how it began, and so is the
    hash of the features. They link asks to each other, which `none` rules out, unless the embedding itself is kept.

    Args:
        key: of the keyed hash; without it a guess of what was asked cannot be tested.
    """
    if level is PrivacyLevel.NONE:
        inputs = record.inputs
        if inputs is not None and record.embedding is None:
            inputs = inputs.model_copy(update={"features": ""})
        return record.model_copy(update={"text": None, "text_hash": None, "session_id": None, "inputs": inputs})
    if record.text is None:
        return record
    text_hash = keyed_hash(record.text, key)
    text = redact(record.text) if level is PrivacyLevel.TEXT else None
    return record.model_copy(update={"text": text, "text_hash": text_hash})


def keyed_hash(text: str, key: bytes) -> str:
    """HMAC-SHA-256 in hexadecimal (RFC 2104)."""
    return hmac.digest(key, text.encode("utf-8", "replace"), "sha256").hex()


def named_session(headers: Mapping[bytes, bytes]) -> str | None:
    """Identity of the conversation that the first of SESSION_HEADERS names; None where there is none."""
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
