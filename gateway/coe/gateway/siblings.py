"""The processes of one gateway, which ask each other over Unix sockets in a folder that only their user may open.

A scrape meets one worker, and metrics are of all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

PATIENCE_S = 2.0
KEEP_ALIVE_S = 2.0
"""Less than a sibling keeps a connection that nobody uses (uvicorn's 5 s), so that none is used as it closes."""


class Siblings:
    """The other processes of this gateway; none where a gateway is one process. Ask on the event loop.

    Args:
        name: this process's.
        others: the names of the others.
    """

    def __init__(self, folder: Path = Path(), name: str = "", others: Sequence[str] = ()) -> None:
        self._name = name
        self._folder, self._others = folder, tuple(others)
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def metrics(self, own: bytes) -> bytes:
        """The metrics of all processes in one text, each sample with the process as a label; `own` where it is alone.

        Samples are not added up here: the reader of the metrics does, and sees that a process began again at 0.
        """
        if not self._others:
            return own
        found = await asyncio.gather(*(self._get(other) for other in self._others))
        texts = {self._name: own} | dict(zip(self._others, found, strict=True))
        up = "".join(f'coe_process_up{{process="{name}"}} {int(text is not None)}\n' for name, text in texts.items())
        head = "# HELP coe_process_up 1 while a process of this gateway answers\n# TYPE coe_process_up gauge\n"
        return (head + up).encode() + merged({name: text for name, text in texts.items() if text is not None})

    async def _get(self, other: str) -> bytes | None:
        """The metrics of one; None where it does not run."""
        try:
            async with self._session(other).get("http://localhost/metrics") as answer:
                return await answer.read()
        except (aiohttp.ClientError, OSError):
            return None  # it is being started again; `coe_process_up` shows that

    def _session(self, other: str) -> aiohttp.ClientSession:
        """The connections to one process, kept between requests."""
        if other not in self._sessions:
            self._sessions[other] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(
                    str(socket_of(self._folder, other)), limit=0, keepalive_timeout=KEEP_ALIVE_S
                ),
                timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
            )
        return self._sessions[other]


def socket_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.sock"


def merged(texts: Mapping[str, bytes]) -> bytes:
    """One exposition of several, by process: each family once, each sample with the label `process`."""
    families: dict[bytes, list[bytes]] = {}
    for process, text in texts.items():
        label = f'process="{process}"'.encode()
        for block in (b"\n" + text).split(b"\n# HELP ")[1:]:  # in a label a line break is escaped
            lines = [line + b"\n" for line in block.rstrip(b"\n").split(b"\n")]  # help, type, samples
            family = families.setdefault(lines[0].split(b" ", 1)[0], [b"# HELP " + lines[0], lines[1]])
            family += [labelled(line, label) for line in lines[2:]]
    return b"".join(line for family in families.values() for line in family)


def labelled(sample: bytes, label: bytes) -> bytes:
    """A sample with one more label."""
    name, brace, rest = sample.partition(b"{")
    if brace:
        return b"%b{%b,%b" % (name, label, rest)
    name, _, value = sample.partition(b" ")
    return b"%b{%b} %b" % (name, label, value)
