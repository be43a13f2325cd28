"""The experts and probes of `coe eval collect`, and the API where they are asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from eval.answers import Answer, Pair, answer_key
from eval.chat_client import ChatClient
from eval.probe_set import Probe
from eval.ray_collect import Place, Spread
from router.section import PluginConfig
from router.types import PROBE_HEADER, FloatArray
from training.types import ModelFacts

Show = Callable[[str], None]
"""Called with a line that says what is being done now."""


@dataclass(frozen=True)
class CollectRequest:
    """The experts, the probes and where to ask. `base_url` is an API root such as http://127.0.0.1:8000/v1, where each
    expert is a model.

    `facts` gives sizes and prices; experts without any have unknown cost. `fingerprints` say what decides an expert's
    answers; the name does where there is none. `given` are answers of another machine, which are not asked again.
    `free` are experts whose answers cost nothing: they are asked each time, so no key has to cover their code.
    `kept` are experts that may stay in the table with what they answered before, though they are not asked now; None
    keeps all of them. `compared_by` is the kind of answers by category, for probes whose grader tells none; `embed` is
    the router's encoder, for kinds that need it. `timeout_s` bounds one answer. `is_asking_failed`: ask again where an
    expert failed before, instead of keeping its 0. `is_asking_all`: ask everything again. `wants_logprobs`:
    of what is asked now, for the gate of `escalate`; builtin experts have none. `spread`: Ray asks and grades.
    """

    probes: tuple[Probe, ...]
    experts: tuple[str, ...]
    base_url: str
    out: Path
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    given: tuple[Answer, ...] = ()
    free: frozenset[str] = frozenset()
    kept: frozenset[str] | None = None
    compared_by: Mapping[str, PluginConfig] = field(default_factory=dict)
    embed: Callable[[Sequence[str]], FloatArray] | None = None
    concurrency: int = 4
    timeout_s: float = 120.0
    api_key: str | None = None
    is_asking_failed: bool = False
    is_asking_all: bool = False
    wants_logprobs: bool = False
    spread: Spread | None = None

    @property
    def place(self) -> Place:
        """The API that experts are asked by."""
        return Place(self.base_url, self.api_key, self.timeout_s, self.concurrency)

    def key(self, expert: str, probe: Probe) -> str:
        """Key of the expert's answer to the probe."""
        return answer_key(probe, self.fingerprints.get(expert, expert))


def pairs_of(request: CollectRequest, experts: Sequence[str]) -> list[Pair]:
    """Every probe for every expert."""
    asked = {expert: request.wants_logprobs and expert not in request.free for expert in experts}
    return [Pair(probe, e, request.key(e, probe), wants) for e, wants in asked.items() for probe in request.probes]


@asynccontextmanager
async def client_of(request: CollectRequest) -> AsyncIterator[ChatClient]:
    """A client of the API that experts are asked by."""
    headers = {PROBE_HEADER: "1"} | ({"authorization": f"Bearer {request.api_key}"} if request.api_key else {})
    timeout = aiohttp.ClientTimeout(total=request.timeout_s)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield ChatClient(session, request.base_url, request.api_key)
