"""A Redis Cluster of one node, and a master with a Sentinel: real servers on free ports, from the embedded program."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from coe_offline.redis_server import find_binary
from tests.waiting import DEADLINE_S, wait_until

SERVICE = "decisions"


def free_port() -> int:
    """A port whose bus port (10,000 above) exists too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        if port < 55_000:
            return port


class Server:
    """One server on a port, with a folder that outlives it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        folder.mkdir(parents=True)
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(find_binary()), *self._options]
        if not self._options or not self._options[0].endswith(".conf"):
            command += ["--port", str(self.port), "--appendonly", "yes", "--save", "", "--dir", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        wait_until(self.answers, f"an answer on {self.port}, whose log is in {self._folder}")

    def answers(self) -> bool:
        try:
            with Redis(port=self.port, socket_timeout=1.0) as client:
                return bool(client.ping())
        except RedisError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[Server]:
    """One node that has all slots."""
    server = Server(folder / "node", "--cluster-enabled", "yes")
    server.start()
    try:
        with Redis(port=server.port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
        yield server
    finally:
        server.kill()


class Watched:
    """A master, its replica and a Sentinel that is patient with a busy machine until the master is killed."""

    def __init__(self, folder: Path) -> None:
        self.master = Server(folder / "master")
        self.master.start()
        self.replica = Server(folder / "replica", "--replicaof", "127.0.0.1", str(self.master.port))
        self.replica.start()
        self.sentinel = self._make_sentinel(folder / "sentinel")
        self.sentinel.start()

    def _make_sentinel(self, folder: Path) -> Server:
        sentinel = Server(folder, "sentinel.conf", "--sentinel")
        (folder / "sentinel.conf").write_text(
            f"port {sentinel.port}\nsentinel monitor {SERVICE} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} {DEADLINE_S * 1000:.0f}\n"
            f"sentinel failover-timeout {SERVICE} 2000\n"
        )
        return sentinel

    def fail_over(self) -> None:
        """Kills the master once the replica has everything."""
        with Redis(port=self.master.port) as master, Redis(port=self.sentinel.port) as sentinel:
            wait_until(lambda: master.wait(1, 1000))
            sentinel.sentinel_set(SERVICE, "down-after-milliseconds", 500)
        self.master.kill()

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{SERVICE}"

    def kill(self) -> None:
        for server in (self.sentinel, self.replica, self.master):
            server.kill()
