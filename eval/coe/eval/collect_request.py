"""The experts and probes of `coe eval collect`, and the API that serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from coe.eval.answers import Answer, Pair, answer_key
from coe.eval.chat_client import ChatClient, open_client
from coe.eval.probe_set import Probe
from coe.router.section import PluginConfig
from coe.router.types import Record
from coe.training.types import ModelFacts

Show = Callable[[str], None]
"""The type of a function that shows the current step, as one line."""


class CollectOptions(Record):
    """The options of `coe eval collect` that say how to ask."""

    concurrency: int = Field(default=4, ge=1, le=256, description="calls that run at once")
    timeout_s: float = 120.0  # longest wait for one answer
    retry_failed: bool = Field(default=False, description="ask again where an expert failed, instead of keeping its 0")
    again: bool = Field(default=False, description="ask everything again, including what is known")


@dataclass(frozen=True, kw_only=True)
class CollectRequest:
    """The probes to ask, the experts to ask, where and how, and where to write.

    `facts` gives sizes and prices; experts without any have unknown cost. `fingerprints` name what decides an expert's
    answers; an expert without one is identified by its name. `compared_by` is the kind of answers by category, for
    probes whose grader has none. `given` are answers of another machine, which are not asked again. `kept` are experts
    that may stay in the table with their earlier answers, though they are not asked now; None keeps all. `cores` of Ray
    grade; with 0 this process does.
    """

    probes: tuple[Probe, ...]
    experts: tuple[str, ...]
    base_url: str
    out: Path
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    compared_by: Mapping[str, PluginConfig] = field(default_factory=dict)
    given: tuple[Answer, ...] = ()
    kept: frozenset[str] | None = None
    options: CollectOptions = field(default_factory=CollectOptions)
    api_key: str | None = None
    cores: int = 0

    def client(self) -> AbstractAsyncContextManager[ChatClient]:
        """Open a client of the API that serves the experts."""
        return open_client(self.base_url, self.api_key, self.options.timeout_s)

    def key(self, expert: str, probe: Probe) -> str:
        """Return the key of the expert's answer to the probe."""
        return answer_key(probe, self.fingerprints.get(expert, expert))


def pairs_of(request: CollectRequest, experts: Sequence[str]) -> list[Pair]:
    """Pair every expert with every probe."""
    return [Pair(probe, e, request.key(e, probe)) for e in experts for probe in request.probes]
