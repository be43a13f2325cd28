"""Rounds of `coe retrain` beside what serves, each in a process of its own: its end gives back the memory that a fit
takes, and the gateway may not import what fits. `coe up`, `coe serve` and `coe retrain --every` use it.

Every gateway may have one: the command itself sees to it that one round runs at a time, and one in a period.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from coe.base.errors import reason_of
from coe.base.extras import MissingExtraError, require_extras
from coe.base.parent_death import coe_words, dying_with_parent
from coe.fleet.processes.process import end_child
from coe.fleet.processes.tasks import stop_task
from coe.fleet.router_registry import Registry
from coe.router.live_pointer import LIVE_FILE

LIMIT_S = 3600.0
"""Seconds after which a round is hung. One over a million decisions takes two minutes (docs/retrain.md)."""

NICENESS = "10"
FIRST_SHARE = 0.1
"""Share of a period that passes before the first round, so that none falls into a start (ours)."""

ROUND_ENDS = ("ended", "failed", "hung")

logger = logging.getLogger(__name__)


class Learning:
    """Starts rounds from `start` to `aclose`, once there is a live router.

    Args:
        routers: folder of the routers.
        words: one round, a command line of `coe`.
        first_s: seconds until the first round at least; None for a share of the period.

    `ends` counts the rounds that it started by their end, one of `ROUND_ENDS`.
    """

    def __init__(
        self,
        routers: Path,
        words: Sequence[str],
        period_s: float,
        *,
        first_s: float | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._registry, self._words, self._period_s, self._limit_s = Registry(routers), words, period_s, limit_s
        self._first_s = FIRST_SHARE * period_s if first_s is None else first_s
        self._tried_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self.ends = Counter[str]()

    @property
    def is_on(self) -> bool:
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Begins; where what learns is not installed, says so once, and leaves it off."""
        try:
            require_extras("learning from the log", ["train"])
        except MissingExtraError as error:
            logger.warning("learning is off: %s", error)
            return
        self._task = asyncio.create_task(self._run(), name="learning")

    async def aclose(self) -> None:
        """Ends it, with the round that runs."""
        await stop_task(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(max(self._first_s, await asyncio.to_thread(self._left_s)))
            if (self._registry.root / LIVE_FILE).exists():
                await self._round()

    def _left_s(self) -> float:
        """Seconds until a period has passed since the last round of any process, and the last try of this one."""
        last_s, _ = self._registry.last_round() or (0.0, "")
        return max(self._tried_s, last_s) + self._period_s - time.time()

    async def _round(self) -> None:
        self._tried_s = time.time()
        try:
            end, said = await run_quietly(self._words, self._limit_s)
        except OSError as error:  # no memory or no process left for it now
            end, said = "failed", reason_of(error)
        self.ends[end] += 1
        level = logging.INFO if end == "ended" else logging.WARNING
        logger.log(level, "coe retrain %s after %.0f s%s", end, time.time() - self._tried_s, said and f": {said}")


async def run_quietly(words: Sequence[str], limit_s: float) -> tuple[str, str]:
    """Runs a command of `coe` at a low priority, and says how it ended, with a line of what it wrote. It ends when we
    are cancelled, or die. Raises OSError."""
    command = dying_with_parent("nice", "-n", NICENESS, *coe_words(*words))
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *command, stdin=null, stdout=pipe, stderr=asyncio.subprocess.STDOUT, start_new_session=True
    )
    try:
        async with asyncio.timeout(limit_s):
            out, _ = await child.communicate()
    except TimeoutError:
        return "hung", f"ended after {limit_s:.0f} s"
    finally:
        await end_child(child)
    lines = [line.strip() for line in reversed(out.decode(errors="replace").splitlines()) if line.strip()]
    if child.returncode == 0:
        return "ended", next(iter(lines), "")
    # The text of an unforeseen error may hold what users wrote, so only its place is logged.
    return "failed", next((line for line in lines if line.startswith(("coe: ", 'File "'))), "")
