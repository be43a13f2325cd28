from __future__ import annotations

import hashlib
import hmac
import stat
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from coe.base.errors import ConfigError
from coe.decision_log.decision_record import DecisionInputs, DecisionRecord, read_record
from coe.decision_log.payloads import to_payload
from coe.decision_log.privacy import kept_fields, load_key, passes_luhn, private_fields, redact, session_hash
from coe.router.config.log import PrivacyLevel
from coe.router.loop import LoopState
from coe.router.types import QueryFacts
from tests.decision_log.running_log import make_record

KEY = b"k" * 32


def kept_of(record: DecisionRecord, level: PrivacyLevel, key: bytes) -> DecisionRecord:
    return record.model_copy(update=private_fields(record, level, key))


def test_level_none_keeps_neither_text_nor_hash_nor_session() -> None:
    record = make_record(0, text="hello").model_copy(update={"text_hash": "abc", "session_id": "def"})
    kept = kept_of(record, PrivacyLevel.NONE, KEY)
    assert (kept.text, kept.text_hash, kept.session_id) == (None, None, None)


@pytest.mark.parametrize(
    ("level", "embedding", "features"),
    [(PrivacyLevel.NONE, None, ""), (PrivacyLevel.NONE, b"\0\0", "f00"), (PrivacyLevel.HASH, None, "f00")],
)
def test_level_none_keeps_no_hash_of_features_but_beside_an_embedding(
    level: PrivacyLevel, embedding: bytes | None, features: str
) -> None:
    inputs = DecisionInputs(encoder="e", features="f00", settings="s", facts=QueryFacts())
    record = make_record(0, text="hello").model_copy(update={"inputs": inputs, "embedding": embedding})
    kept = kept_of(record, level, KEY)
    assert kept.inputs == inputs.model_copy(update={"features": features})
    assert kept.embedding == embedding


@pytest.mark.parametrize("level", [PrivacyLevel.HASH, PrivacyLevel.TEXT])
def test_the_other_levels_keep_the_session_which_is_a_hash(level: PrivacyLevel) -> None:
    record = make_record(0).model_copy(update={"session_id": "def"})
    assert kept_of(record, level, KEY).session_id == "def"


def test_what_a_client_calls_its_session_is_kept_by_its_keyed_hash_only() -> None:
    kept = session_hash("named:jo@example.org", KEY)
    assert kept == hmac.new(KEY, b"named:jo@example.org", hashlib.sha256).hexdigest()[:16]
    assert kept != session_hash("named:jo@example.org", b"o" * 32)


def test_level_hash_keeps_a_keyed_hash_only() -> None:
    kept = kept_of(make_record(0, text="hello"), PrivacyLevel.HASH, KEY)
    assert kept.text is None
    assert kept.text_hash == hmac.new(KEY, b"hello", hashlib.sha256).hexdigest()
    assert kept.text_hash != kept_of(make_record(0, text="hello"), PrivacyLevel.HASH, b"o" * 32).text_hash


def test_level_text_redacts_and_hashes_what_was_asked() -> None:
    text = "write to jo@example.org"
    kept = kept_of(make_record(0, text=text), PrivacyLevel.TEXT, KEY)
    assert kept.text == "write to [email]"
    assert kept.text_hash == kept_of(make_record(0, text=text), PrivacyLevel.HASH, KEY).text_hash


def test_of_a_decision_among_many_experts_the_log_keeps_a_few() -> None:
    record = make_record(0)
    few = record.decision.model_copy(update={"eligible": ("left",), "eligible_probs": (1.0,)})
    lacks = {f"expert-{number}": "takes no images" for number in range(1000)}
    many = few.model_copy(update={"excluded": lacks, "excluded_quality": (), "predicted_quality": ()})
    records = [record.model_copy(update={"decision": each}) for each in (few, many)]
    kept = [each.model_copy(update=kept_fields(each, PrivacyLevel.HASH, KEY)).decision for each in records]
    assert kept[0] is few
    assert kept[1].rest.shut_out == 1000 - len(kept[1].excluded) > 900


def test_everything_else_of_the_record_stays() -> None:
    record = make_record(3, text="hi")
    kept = kept_of(record, PrivacyLevel.TEXT, KEY)
    assert kept.model_copy(update={"text_hash": None}) == record


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail a.b+c@mail.example.co.uk, please", "mail [email], please"),
        ("card 4111 1111 1111 1111 exp 12/27", "card [card] exp 12/27"),
        ("5500-0000-0000-0004", "[card]"),
        ("call +49 (0)170 1234567 now", "call [phone] now"),
        ("call (555) 123-4567.", "call [phone]."),
        ("555-123-4567", "[phone]"),
        ("Tel. 030 1234 5678", "Tel. [phone]"),
        ("my phone is 01701234567", "my phone is [phone]"),
        ("key sk-abcDEF0123456789abcdef", "key [key]"),
        ("AKIAIOSFODNN7EXAMPLE", "[key]"),
        ("password: hunter2, thanks", "password: [key], thanks"),
        ("Authorization: Bearer abc123def456", "Authorization: Bearer [key]"),
        ("t eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF", "t [key]"),
        ("h 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c", "h [key]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\nfix it", "[key]\nfix it"),
        ("a\ud800b", "a?b"),
    ],
)
def test_redacts(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "what is 123456 * 789012?",
        "1234567890123456",  # sixteen digits, wrong check digit
        "on 2024-01-15 at 10:30",
        "01/15/2024",
        "convert 0.000012 km to mm",
        "3.14159265358979",
        "user @ host",
        "the password field is empty",
        "src/a_very_long_module_name_for_a_test/of_the_redaction.py",
        "SELECT id FROM t WHERE n > 100 LIMIT 20",
    ],
)
def test_leaves_ordinary_text_alone(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "secret:" * 60_000 + " 1",
        "12345 " + "key:api_key=" * 40_000,
        "1secret:" * 60_000,
        "password " + " " * 400_000 + "1",
        "eyJ-" * 100_000,
        "eyJhbGciOi-" * 20_000 + ".abcdefgh" * 20_000,
        "x.eyJabcdefgh" * 30_000,
        "sk-" + "-eyJ" * 100_000,
        "12345 " + "A1b2C3d4" * 50_000,
        "a.b+c%" * 70_000 + "@",
        "a@b." * 100_000,
        "1 " * 200_000,
        "+1(" * 130_000 + "000000",
        "tel 0" * 80_000,
        "-----BEGIN " * 40_000 + "PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----" + "-----END A" * 40_000,
    ],
)
def test_time_grows_with_the_length_and_not_with_its_square(text: str) -> None:
    """Some 400,000 characters each: in a second or less; at 162 ms for 4,000, the square would take half an hour."""
    begin = time.thread_time()
    redact(text)
    assert time.thread_time() - begin < 20.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("secret:a,secret:b1,secret:c", "secret:a,secret:[key],secret:c"),
        ("secret:secret:x secret:y1", "secret:secret:x secret:[key]"),
        ("password is secret is hunter2", "password is secret is [key]"),
        ("password: my-secret is hunter2 and", "password: my-secret is [key] and"),
        ("my api key : a1secret:b2 c3", "my api key : [key] c3"),
        ("secret x1=secret\ny2", "secret [key]\ny2"),
        ("foo-eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "foo-[key]"),
        ("www-example-site.eyJhbGciOiJI.eyJzdWIiOiIx.c2ln end", "www-example-site.[key] end"),
        ("eyJshort.eyJhbGciOiJI.eyJzdWIiOiIx.x", "eyJshort.[key]"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx", "eyJhbGciOiJI.eyJzdWIiOiIx"),
    ],
)
def test_each_secret_is_found_also_beside_others(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_luhn() -> None:
    assert passes_luhn("4111111111111111")
    assert not passes_luhn("4111111111111112")


@pytest.mark.parametrize("number", ["4111111111111111", "5500005555555559", "371449635398431", "6011000990139424"])
def test_of_ten_check_digits_one_is_right(number: str) -> None:
    assert [digit for digit in "0123456789" if passes_luhn(number[:-1] + digit)] == [number[-1]]


def test_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    key = load_key(tmp_path / "data")
    assert len(key) == 32
    assert load_key(tmp_path / "data") == key
    assert stat.S_IMODE((tmp_path / "data" / "log.key").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["log.key"]
    assert load_key(tmp_path / "other") != key


@pytest.mark.parametrize("text", ["", "abcd", "not hexadecimal"])
def test_a_broken_key_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.key").write_text(text)
    with pytest.raises(ConfigError, match=r"log\.key"):
        load_key(tmp_path)


def test_a_record_that_is_refused_is_not_quoted() -> None:
    with pytest.raises(ValidationError) as refused:
        DecisionRecord.model_validate({"text": "my secret question"})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("level", "tool"), [("none", ""), ("hash", session_hash("my_tool", KEY)), ("text", "my_tool")])
def test_the_name_of_a_tool_is_kept_as_the_text_is(level: str, tool: str) -> None:
    record = make_record(0, text="hello").model_copy(update={"loop": LoopState(turns=3, tool="my_tool")})
    kept = kept_of(record, PrivacyLevel(level), KEY)
    assert kept.loop == LoopState(turns=3, tool=tool)
    assert read_record(to_payload(record, private_fields(record, PrivacyLevel(level), KEY))).loop == kept.loop
