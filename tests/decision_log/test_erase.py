"""A subject is gone from every place, down to the bytes of the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from coe.base.errors import ConfigError
from coe.base.redis_names import CACHED_ANSWERS, CACHED_FROM
from coe.decision_log.consumer import Consumer
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.doctor_commands import examine
from coe.decision_log.erase import erase, stored_forms
from coe.decision_log.feedback_types import Feedback, FeedbackKind
from coe.decision_log.payloads import to_payload
from coe.decision_log.privacy import keyed_hash, load_key, session_hash
from coe.decision_log.sink import DecisionLog
from coe.decision_log.spool import Spool
from coe.decision_log.stream import packed
from coe.decision_log.stream_entries import dead_stream
from coe.fleet.calls.pool import ExpertPool
from coe.gateway.chat_request import chat_request
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import live_router
from coe.gateway.settings import read_settings
from coe.router.config.gateway import GatewayConfig
from coe.router.config.log import LogConfig, PrivacyLevel
from coe_offline.redis_server import RedisServer
from tests.decision_log.running_log import make_record
from tests.gateway.running import MemoryStore, config_of
from tests.waiting import until

DATABASES = ("sqlite",)

CANARY = b"canary words"
EMBEDDING = bytes(range(48))  # of a subject
CONFIG = LogConfig(privacy=PrivacyLevel.TEXT, embeddings=True)


def of(key_id: str, record: DecisionRecord) -> DecisionRecord:
    is_mine = key_id == "me"
    said = {"text": CANARY.decode(), "embedding": EMBEDDING} if is_mine else {"text": "other words"}
    return record.model_copy(update={"key_id": key_id, **said})


def files_with(folder: Path, text: bytes) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes())
    return sorted(str(path.relative_to(folder)) for path in found)


async def test_from_sql_feedback_stream_dead_letters_and_spools(tmp_path: Path, store: Database) -> None:
    server = RedisServer(tmp_path / "redis")
    url = await server.start()
    with Redis.from_url(url) as client:
        for seq, key_id in enumerate(("me", "you")):
            client.xadd(CONFIG.stream, {"record": to_payload(of(key_id, make_record(seq)))})
        consumer = Consumer(redis_url=url, stream=CONFIG.stream, database=store, name="c")
        await consumer.drain()
        await consumer.aclose()
        store.put_feedback(Feedback(decision_id="r1-0", kind=FeedbackKind.THUMB, value=1.0, at=0.0, key_id="me"))
        together = [to_payload(of(key_id, make_record(seq))) for seq, key_id in ((2, "me"), (3, "you"))]
        client.xadd(CONFIG.stream, {"record": packed(together)})
        client.xadd(dead_stream(CONFIG.stream), {"record": to_payload(of("me", make_record(4)))})
        client.mset({f"{CACHED_ANSWERS}1f": CANARY, f"{CACHED_FROM}r1-0": "1f"})
    leave_spool(tmp_path, [of("me", make_record(5)), of("you", make_record(6)), of("me", make_record(7))])
    for seq in (2, 3, 4, 5, 6):
        thumb = Feedback(decision_id=f"r1-{seq}", kind=FeedbackKind.THUMB, value=1.0, at=0.0, key_id="somebody")
        store.put_feedback(thumb)
    assert len(files_with(tmp_path, CANARY)) >= 3
    assert len(files_with(tmp_path, EMBEDDING)) >= 3
    done = await erase(tmp_path, CONFIG, url, store, "me")
    assert (done.sql.decisions, done.dead) == (1, 1)
    assert files_with(tmp_path, CANARY) + files_with(tmp_path, EMBEDDING) == []
    with Redis.from_url(url) as client:
        assert client.keys("coe:cache:*") == []
    assert [seq for seq in range(8) if store.get_feedback(f"r1-{seq}")] == [3, 6]
    again = await erase(tmp_path, CONFIG, url, store, "me")
    assert (again.sql.decisions, again.sql.feedback, again.dead) == (0, 0, 0)
    found = await examine(tmp_path, CONFIG, url, store)
    assert found.is_healthy
    assert (found.decisions, found.rows, found.removed, found.in_spool) == (8, 3, 5, 0)
    await server.stop()


def leave_spool(data_dir: Path, records: list[DecisionRecord]) -> None:
    spool = Spool(data_dir / "spool" / records[0].replica, max_bytes=1_000_000)
    spool.open()
    spool.write([to_payload(record) for record in records])
    spool.close()


async def test_while_the_gateway_works(tmp_path: Path, store: Database) -> None:
    """Records that it spooled and sent, and those not sent yet."""
    server = RedisServer(tmp_path / "redis")
    url = await server.start()
    log = DecisionLog(data_dir=tmp_path, redis_url=url, config=CONFIG)
    consumer = Consumer(redis_url=url, stream=CONFIG.stream, database=store, name="c", block_ms=20)
    await log.start()
    await consumer.start()
    mine = [of("me", make_record(log.next_seq(), log.replica)) for _ in range(3)]
    yours = of("you", make_record(log.next_seq(), log.replica))
    for record in (*mine[:2], yours):
        log.append(record)
    await until(lambda: store.count() == 3)
    await server.stop()
    log.append(mine[2])
    await until(lambda: log.stats().spooled == 4)
    await server.start()
    await erase(tmp_path, CONFIG, url, store, "me")
    await until(lambda: log.stats().pending == 0)
    await consumer.aclose()
    assert files_with(tmp_path, CANARY) == []
    await log.aclose()
    last = Consumer(redis_url=url, stream=CONFIG.stream, database=store, name="last")
    await last.drain()
    await last.aclose()
    found = await examine(tmp_path, CONFIG, url, store)
    assert (found.is_healthy, found.decisions, found.rows, found.removed) == (True, 4, 1, 3)
    assert store.get_decision(yours.decision_id) is not None
    await server.stop()


async def test_a_session_is_found_by_its_name_and_a_text_by_itself(
    tmp_path: Path, redis_url: str, store: Database
) -> None:
    settings = read_settings({"COE_DATA_DIR": str(tmp_path)})
    config = config_of()
    log = DecisionLog(data_dir=tmp_path, redis_url=redis_url, config=config.log)
    live, key = live_router(settings, config), load_key(tmp_path)
    parts = Parts(config, ExpertPool({}), live, log, MemoryStore(), hash_key=key)
    asked = make_record(0, text="hello there").model_copy(
        update={"session_id": parts.decider.session_id("named:support-4711", "")}
    )
    await log.start()
    log.append(asked)
    await log.aclose()
    consumer = Consumer(redis_url=redis_url, stream=config.log.stream, database=store, name="c")
    await consumer.drain()
    await consumer.aclose()
    kept = store.get_decision(asked.decision_id)
    assert kept.session_id in stored_forms("support-4711", key)
    assert kept.text_hash in stored_forms("hello there", key)
    assert "key-1234abcd" in stored_forms("key-1234abcd", key)


def test_a_name_in_a_header_and_a_text_are_looked_for_as_a_gateway_keeps_them() -> None:
    key = b"k" * 32
    for sent in ("Zoë", "Zoë" * 100):
        as_header = sent.encode()[:256].decode("latin-1")
        assert session_hash(f"named:{as_header}", key) in stored_forms(sent, key)
    for sent in (" hello\n", "word " * 1500, "<system-reminder>so</system-reminder> hello"):
        body = {"model": "auto", "messages": [{"role": "user", "content": sent}]}
        text = chat_request(body, GatewayConfig()).text
        assert keyed_hash(text, key) in stored_forms(sent, key)
    assert keyed_hash(("word " * 1500)[:4000], key) in stored_forms("word " * 1500, key)  # of a search


def test_a_subject_that_is_no_utf8_is_looked_for_as_the_hashes_have_it() -> None:
    assert stored_forms("caf\udce9", b"k" * 32) == stored_forms("caf?", b"k" * 32)


async def test_an_empty_subject_is_refused(tmp_path: Path, store: Database) -> None:
    with pytest.raises(ConfigError, match="--subject is empty"):
        await erase(tmp_path, CONFIG, "unix:///none.sock", store, " ")


async def test_with_redis_away_sql_is_erased_and_the_rest_can_be_done_again(tmp_path: Path, store: Database) -> None:
    store.write_decisions([of("me", make_record(0))])
    with pytest.raises(RedisError):
        await erase(tmp_path, CONFIG, f"unix://{tmp_path}/none.sock", store, "me")
    assert store.count() == 0
