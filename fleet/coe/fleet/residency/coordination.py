"""Messages between the processes of a composition about the engines that they share.

One of them has the turn: it alone changes engines. The others tell it what they ask for and which requests they have,
and hear from it who is awake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from pydantic import BaseModel

from coe.fleet.residency.scheduler import Goal, Outlook
from coe.fleet.residency.types import Residency


class Note(BaseModel, frozen=True):
    """A request that was routed: predicted quality by engine."""

    category: str
    quality: dict[str, float]
    begins: bool | None


class Report(BaseModel, frozen=True):
    """The state of one process: the version of the view that it acts on, its requests by engine as of then, and the
    engines that requests of it wait for."""

    view: str = ""
    running: dict[str, int] = {}
    asked: frozenset[str] = frozenset()


class View(BaseModel, frozen=True):
    """The engines as the process with the turn has them.

    Another `version` means that others take requests. `goal` is the engine being woken, with what makes room for it.
    `refused` are engines that cannot be woken now, by the process that asked.
    """

    version: str = ""
    serving: frozenset[str] = frozenset()
    states: dict[str, Residency] = {}
    goal: Goal | None = None
    outlooks: dict[str, Outlook] = {}
    refused: dict[str, frozenset[str]] = {}


class Heard(NamedTuple):
    """The answer to a report. `turn` is 0 where another process has it, and then there are no reports and notes."""

    turn: int
    view: View | None
    reports: Mapping[str, Report] = {}
    notes: Sequence[Note] = ()


class Coordination(Protocol):
    """The place where they meet. Every method raises BackendError while it cannot be reached."""

    me: str
    """The name of this process."""

    lease_s: float
    """A process that is not heard of for so long has lost its turn, and its requests do not count any more."""

    async def exchange(self, report: Report, notes: Sequence[Note], turn: int, view: View | None) -> Heard:
        """Leaves a report, takes a turn that nobody has, and hears what there is.

        Args:
            turn: the one that this process believes to have; 0: none.
            view: put in place of the one before if it has that turn; None leaves it.
        """
        ...

    async def aclose(self) -> None:
        """Gives the turn back and leaves."""
        ...
