from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from redis import Redis

from coe.base.errors import StoreError
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.doctor import survey_spools
from coe.decision_log.doctor_commands import consume_until_signal, doctor, drain
from coe.decision_log.ledger import Ledger
from coe.decision_log.replica_status import DecisionCount, ReplicaState, ReplicaStatus
from coe.decision_log.spool import Spool
from coe.decision_log.stream import GROUP
from coe.decision_log.stream_entries import dead_stream
from coe.router.config.log import LogConfig
from tests.decision_log.running_log import evicting_redis, make_record
from tests.small_composition import composition_of
from tests.waiting import until

CONFIG = composition_of({"coder": {"engine": "echo", "model": "m"}})

pytestmark = pytest.mark.usefixtures("command_environment")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "experts.yaml"
    path.write_text(json.dumps(CONFIG))
    return path


def leave_spool(data_dir: Path, records: list[DecisionRecord]) -> None:
    spool = Spool(data_dir / "spool" / records[0].replica, max_bytes=1_000_000)
    spool.open()
    spool.write([record.model_dump_json().encode() for record in records])
    spool.close()


def test_doctor_finds_nothing_wrong(
    tmp_path: Path, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    store.write_decisions([make_record(seq) for seq in range(3)])
    store.close()
    assert doctor(tmp_path, config) == 0
    assert "3 decisions, 3 rows, 0 gaps, 0 duplicates, 0 dead letters" in capsys.readouterr().out


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_doctor_names_a_redis_that_evicts(
    tmp_path: Path, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    Database(f"sqlite:///{tmp_path / 'coe.db'}").close()
    with evicting_redis(redis_url, policy):
        assert doctor(tmp_path, config) == 1
    assert f"maxmemory-policy {policy}); allowed: noeviction" in capsys.readouterr().out
    assert doctor(tmp_path, config) == 0


def test_doctor_names_holes_repeats_dead_letters_and_what_is_on_the_way(
    tmp_path: Path, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    store.write_decisions([make_record(0), make_record(3), make_record(5), make_record(0, "r2")])
    store.write_decisions([make_record(0, "r2").model_copy(update={"decision_id": "again"})])
    store.close()
    leave_spool(tmp_path, [make_record(seq) for seq in (1, 2)])
    with Redis.from_url(redis_url) as client:
        client.xadd("coe:decisions", {"record": "x"})
        client.xadd(dead_stream("coe:decisions"), {"record": "x"})
    assert doctor(tmp_path, config) == 1
    out = capsys.readouterr().out
    assert "7 decisions, 5 rows, 1 gaps (1 decisions lost), 1 duplicates, 1 dead letters" in out
    assert "2 in spools, 1 in the stream" in out
    assert "lost: r1 numbers 4\n" in out
    assert out.index("r1") < out.index("r2")


def test_doctor_sees_what_a_killed_gateway_had_in_memory(
    tmp_path: Path, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_spool(tmp_path, [make_record(seq) for seq in range(3)])
    numbered = DecisionCount()
    numbered.open(tmp_path / "spool" / "r1")
    for _ in range(6):
        numbered.take()  # 3, 4 and 5 were numbered and never written
    for _ in range(2):  # before and after the spool is gone
        assert doctor(tmp_path, config) == 1
        out = capsys.readouterr().out
        assert "6 decisions" in out
        assert "lost: r1 numbers 3-5\n" in out
        assert drain(tmp_path, config) == 0
        capsys.readouterr()
    assert not (tmp_path / "spool" / "r1").exists()


def test_a_silent_replica_is_named_until_it_is_given_up(
    tmp_path: Path, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    store.write_decisions([make_record(0)])
    Ledger(store).note_replicas([ReplicaStatus(replica="r1", decisions=1, state=ReplicaState.RUNNING, at=0.0)])
    store.close()
    assert doctor(tmp_path, config) == 1
    assert "silent: r1 since 1970-01-01T00:00:00+00:00" in capsys.readouterr().out
    assert doctor(tmp_path, config, give_up=["r1"]) == 0
    assert "silent" not in capsys.readouterr().out
    with pytest.raises(StoreError, match=r"no replica 'r2' is known.*r1"):
        doctor(tmp_path, config, give_up=["r2"])


def test_a_replica_that_was_heard_of_lately_is_not_given_up(tmp_path: Path, config: Path, redis_url: str) -> None:
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    status = ReplicaStatus(replica="r1", decisions=1, state=ReplicaState.RUNNING, at=time.time())
    Ledger(store).note_replicas([status])
    with pytest.raises(StoreError, match=r"replica 'r1' was heard of 0 s ago; allowed: .* silent for 300 s"):
        doctor(tmp_path, config, give_up=["r1"])
    assert Ledger(store).accounts()[0].status == status
    store.close()


def test_drain_brings_stream_and_spools_of_the_dead_into_sql(
    tmp_path: Path, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_spool(tmp_path, [make_record(seq) for seq in range(3)])
    with Redis.from_url(redis_url) as client:
        for seq in (2, 3):
            client.xadd("coe:decisions", {"record": make_record(seq).model_dump_json()})
    assert drain(tmp_path, config) == 0
    assert "3 decisions sent from spools; 4 rows written, 1 were there already, 0 given up" in capsys.readouterr().out
    assert survey_spools(tmp_path / "spool").records == 0
    assert doctor(tmp_path, config) == 0


async def test_consume_writes_rows_until_it_is_told_to_end(tmp_path: Path, redis_url: str) -> None:
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    consuming = asyncio.create_task(consume_until_signal(tmp_path, LogConfig(), redis_url, store))
    with Redis.from_url(redis_url) as client:
        client.xadd("coe:decisions", {"record": make_record(0).model_dump_json()})
        await until(lambda: store.count() == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        await consuming
        assert client.xinfo_consumers("coe:decisions", GROUP) == []
    store.close()


def test_drain_with_a_letter_that_is_dead(tmp_path: Path, config: Path, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.xadd("coe:decisions", {"record": "x"})
    assert drain(tmp_path, config) == 1


def test_without_redis_url_the_embedded_server_is_used(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL")
    leave_spool(tmp_path, [make_record(0)])
    assert drain(tmp_path, config) == 0
    assert "1 decisions sent from spools; 1 rows written" in capsys.readouterr().out
    assert (tmp_path / "redis" / "appendonlydir").is_dir()


def test_redis_away_is_one_clear_error(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/none.sock")
    with pytest.raises(StoreError, match="Redis does not answer"):
        doctor(tmp_path, config)


def test_a_survey_of_spools_leaves_out_what_was_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool" / "r1", max_bytes=1_000_000)
    spool.open()
    for number in range(6):
        spool.write([b"%d" % number])
    spool.read(10)
    assert survey_spools(tmp_path / "spool").records == 6
    spool.acknowledge(1)
    assert survey_spools(tmp_path / "spool").records == 5
    spool.close()
    assert survey_spools(tmp_path / "spool").records == 5
    shutil.rmtree(tmp_path / "spool")
    assert survey_spools(tmp_path / "spool").records == 0
