"""Turns to retrain: one at a time, and none that is over promotes. Redis is a real Valkey."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from redis import Redis

from base.errors import ArtifactError, ConfigError
from base.redis_names import RETRAIN_TURN
from tests.decision_log.redis_kinds import cluster
from tests.waiting import wait_until
from training.retrain_lock import (
    FENCE_FILE,
    Fence,
    LocalTurns,
    LockLostError,
    LockUnreachableError,
    NoTurnError,
    SharedTurns,
)

HOLDER = """
import sys
from pathlib import Path
from training.retrain_lock import LockLostError, SharedTurns
root, url = Path(sys.argv[1]), sys.argv[2]
with SharedTurns(root, url, expires_s=0.3).take() as turn:
    print("holding", turn.number, flush=True)
    sys.stdin.readline()
    try:
        with turn.promotion():
            (root / "promoted").write_text("by the late one")
            print("promoted", flush=True)
    except LockLostError as error:
        print("refused:", error, flush=True)
"""


def test_one_replica_at_a_time(redis_url, tmp_path):
    turns = SharedTurns(tmp_path, redis_url)
    with turns.take() as first:
        with pytest.raises(NoTurnError, match="another replica is retraining"), turns.take():
            pass
        with first.promotion():
            pass
    with turns.take() as second:
        assert second.number == first.number + 1


def test_the_lock_lives_as_long_as_its_holder_works(redis_url, tmp_path):
    with Redis.from_url(redis_url) as client, SharedTurns(tmp_path, redis_url, expires_s=6).take() as turn:
        value, seen = client.get(RETRAIN_TURN), [client.pttl(RETRAIN_TURN)]

        def was_renewed(times):
            seen.append(client.pttl(RETRAIN_TURN))
            return sum(later > earlier for earlier, later in pairwise(seen)) >= times

        wait_until(lambda: was_renewed(times=2))
        assert client.get(RETRAIN_TURN) == value
        assert turn.is_ours()


def test_a_paused_holder_whose_lock_expired_cannot_promote(redis_url, tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path), redis_url]
    with (
        Redis.from_url(redis_url) as client,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder,
    ):
        assert holder.stdout.readline() == "holding 1\n"
        os.kill(holder.pid, signal.SIGSTOP)
        wait_until(lambda: not client.exists(RETRAIN_TURN))
        with SharedTurns(tmp_path, redis_url).take() as turn, turn.promotion():
            (tmp_path / "promoted").write_text("by the second one")
        os.kill(holder.pid, signal.SIGCONT)
        said, _ = holder.communicate("\n")
    assert said.startswith("refused: turn 1 to retrain is over")
    assert (tmp_path / "promoted").read_text() == "by the second one"


def test_the_fence_alone_refuses_an_older_turn(tmp_path):
    """Even when Redis says the lock is still ours: it may have failed over to a replica that never counted of it."""
    fence = Fence(tmp_path)
    assert [fence.begin(), fence.begin()] == [1, 2]
    with pytest.raises(LockLostError, match="turn 1 to retrain is over: turn 2 has begun"), fence.passing(1):
        pass
    with fence.passing(2):
        pass


def test_turns_that_begin_at_once_get_different_numbers(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda _: Fence(tmp_path).begin(), range(40)))
    assert sorted(numbers) == list(range(1, 41))


def test_a_redis_that_lost_its_data_goes_on_counting_from_the_fence(redis_url, tmp_path):
    (tmp_path / FENCE_FILE).write_text("41")
    with SharedTurns(tmp_path, redis_url).take() as turn:
        assert turn.number == 42
    with SharedTurns(tmp_path, redis_url).take() as turn:
        assert turn.number == 43


def test_processes_of_one_host_take_turns_without_redis(tmp_path):
    turns = LocalTurns(tmp_path)
    with turns.take() as turn:
        with pytest.raises(NoTurnError, match="another process on this host"), turns.take():
            pass
        with turn.promotion():
            pass
    with turns.take() as turn:
        assert turn.number == 2


def test_a_redis_that_is_away_or_misnamed_is_said_so(tmp_path):
    socket = f"unix://{tmp_path}/none.sock"
    with pytest.raises(LockUnreachableError, match="cannot be asked whose turn"), SharedTurns(tmp_path, socket).take():
        pass
    with pytest.raises(ConfigError, match="REDIS_URL is not a Redis URL"), SharedTurns(tmp_path, "ftp://x").take():
        pass


def test_a_damaged_fence_is_named(tmp_path: Path):
    (tmp_path / ".fence").write_text("many")
    with pytest.raises(ArtifactError, match="holds 'many', not the number of a turn"):
        Fence(tmp_path).begin()


def test_turns_in_a_cluster(tmp_path):
    with cluster(tmp_path) as node:
        turns = SharedTurns(tmp_path / "routers", f"redis+cluster://127.0.0.1:{node.port}")
        with turns.take() as turn:
            with pytest.raises(NoTurnError, match="another replica is retraining"), turns.take():
                pass
            with turn.promotion():
                pass
        with turns.take() as turn:
            assert turn.number == 2
