"""From experts.yaml to running engines and the addresses of their experts.

Two kinds run on this host: the embedded llama.cpp (one process per base model, experts are adapters on it) and vLLM
(one process per model and arguments). Engines that others run have a `url` in experts.yaml and are not our business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from coe.base.errors import EngineError
from coe.fleet.gpus import named_gpus
from coe.fleet.hosts.engine_plans import EnginePlan, llamacpp_plans, refuse_taken_ports, vllm_plans
from coe.fleet.processes.process import ProcessState, ProcessStatus, SupervisedProcess
from coe.fleet.residency.fingerprints import Fingerprint
from coe.fleet.residency.types import SleepLevel
from coe.fleet.vllm.addresses import Desired, EngineRecord
from coe.fleet.vllm.command import ENGINE_KEY
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine


@dataclass(frozen=True, slots=True)
class EngineAddresses:
    """Addresses of this host's experts: API roots per expert; adapter number per llama.cpp expert, None is the base."""

    urls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lora_ids: dict[str, int | None] = field(default_factory=dict)


class Fleet:
    """The engines of this host.

    Args:
        config: the composition.
        folder: where experts.yaml lies.
        data_dir: logs go to `engines/`, converted adapters to `adapters/`.
        environment: the environment that engines get, before what experts.yaml adds.
        engines: which kinds to run.
        running: API roots per expert that another `coe` of this host serves already; its engines are not started.
        label: part of the names of llama.cpp's processes, where others run beside them.
    """

    def __init__(
        self,
        config: CoeConfig,
        folder: Path,
        data_dir: Path,
        environment: Mapping[str, str],
        engines: Collection[Engine] = (Engine.LLAMACPP, Engine.VLLM),
        running: Mapping[str, tuple[str, ...]] | None = None,
        label: str = "",
    ) -> None:
        self._label = label
        self._config, self._folder, self._data_dir = config, folder, data_dir
        self._environment = environment
        self._kinds = frozenset(engines)
        self._running = {name: urls for name, urls in (running or {}).items() if name in config.engine_entries}
        self._plans: list[EnginePlan] = []
        self._processes: list[SupervisedProcess] = []
        self._desired: dict[str, Desired] = {}  # by engine; those left out are to be awake
        self._turns = Turns()
        self._fingerprints: dict[str, Fingerprint] = {}  # by API root

    @property
    def engines(self) -> list[EngineRecord]:
        """Each process as other commands see it."""
        return [
            EngineRecord(
                name=plan.spec.name,
                experts=plan.experts,
                url=plan.url,
                state=status.state,
                pid=status.pid,
                restarts=status.restarts,
                gpus=",".join(gpus_of(plan)),
                log=str(plan.spec.log),
                desired=self._desired.get(plan.spec.name, Desired.AWAKE),
                fingerprint={name: {**answer} for name, answer in self._fingerprints.get(plan.url, {}).items()},
            )
            for plan, (status, _) in zip(self._plans, self.statuses, strict=True)
        ]

    @property
    def statuses(self) -> tuple[tuple[ProcessStatus, tuple[str, ...]], ...]:
        """Each process with the experts it serves."""
        return tuple((process.status, plan.experts) for process, plan in zip(self._processes, self._plans, strict=True))

    async def start(self) -> EngineAddresses:
        """Starts the engines, those first that are to sleep then, and returns when all serve, sleep or have failed. One
        that failed leaves the others running.

        Raises:
            MissingWeightsError, ArtifactError, ConfigError: an entry names what is not there.
            EngineError: none of them started.
        """
        plans = await asyncio.to_thread(self._plan)
        refuse_taken_ports(plans)
        self._plans = plans
        self._desired = {plan.spec.name: Desired.ASLEEP for plan in plans if plan.sleeps_at is not None}
        self._processes = [self._supervised(number) for number in range(len(plans))]
        try:
            for number in sorted(range(len(plans)), key=lambda number: plans[number].sleeps_at is None):
                self._processes[number].start()
            await settled(self._processes)
            states = [process.status for process in self._processes]
            if states and all(each.state is ProcessState.FAILED for each in states):
                raise EngineError("\n".join(each.reason or each.name for each in states))
        except BaseException:
            await self.stop()
            raise
        return self._addresses()

    async def stop(self) -> None:
        """Stops every engine, all at once."""
        await asyncio.gather(*(process.stop() for process in self._processes))

    async def follow(self, desired: dict[str, Desired]) -> None:
        """Ends the engines that are to be stopped, and starts those that are to be awake and have ended."""
        self._desired = desired
        to_end = [
            number
            for number, plan in enumerate(self._plans)
            if desired.get(plan.spec.name) is Desired.STOPPED and self._state(number) is not ProcessState.STOPPED
        ]
        await asyncio.gather(*(self._processes[number].stop() for number in to_end))
        for number in to_end:
            self._processes[number] = self._supervised(number)
        for number, plan in enumerate(self._plans):
            if self._is_to_run(plan) and self._state(number) is ProcessState.STOPPED:
                self._processes[number] = self._supervised(number)
                self._processes[number].start()

    def _is_to_run(self, plan: EnginePlan) -> bool:
        """False for one that has ended asleep, too: others may have its GPU memory by then."""
        return self._desired.get(plan.spec.name, Desired.AWAKE) is Desired.AWAKE

    def _state(self, number: int) -> ProcessState:
        return self._processes[number].status.state

    def _supervised(self, number: int) -> SupervisedProcess:
        plan = self._plans[number]

        async def is_ready() -> bool:
            if plan.spec.is_ready is not None and not await plan.spec.is_ready():
                return False
            if plan.can_sleep:
                is_to_sleep = self._desired.get(plan.spec.name) is Desired.ASLEEP
                self._fingerprints |= await examined(plan, plan.sleeps_at if is_to_sleep else None)
            return True

        return SupervisedProcess(
            replace(plan.spec, is_ready=is_ready),
            may_restart=lambda: self._is_to_run(plan),
            turn=lambda: self._turns.turn(gpus_of(plan)),
        )

    def _plan(self) -> list[EnginePlan]:
        """Reads weights and adapters, so it may take a second: run it in a thread."""
        plans = []
        if Engine.LLAMACPP in self._kinds:
            plans += llamacpp_plans(self._config, self._folder, self._data_dir, self._environment, self._label)
        if Engine.VLLM in self._kinds:
            plans += vllm_plans(self._config, self._folder, self._data_dir, self._environment)
        return [plan for plan in plans if not self._running.keys() >= set(plan.experts)]

    def _addresses(self) -> EngineAddresses:
        addresses = EngineAddresses(urls=dict(self._running))
        for plan in self._plans:
            for name in plan.experts:
                addresses.urls[name] = (*addresses.urls.get(name, ()), plan.url)
            addresses.lora_ids.update(plan.lora_ids)
        return addresses


def gpus_of(plan: EnginePlan) -> list[str]:
    """Numbers of its GPUs, where they are named."""
    return named_gpus(plan.spec.env or {})


class Turns:
    """Engines that share a GPU start one after the other, in the order in which they ask: vLLM measures the free memory
    while it starts."""

    def __init__(self) -> None:
        self._starts: dict[asyncio.Event, frozenset[str]] = {}  # GPUs by the end of each start, the first one first

    @asynccontextmanager
    async def turn(self, gpus: Collection[str]) -> AsyncIterator[None]:
        """Waits for earlier starts on these GPUs; later ones wait until it is left."""
        earlier = [end for end, others in self._starts.items() if not others.isdisjoint(gpus)]
        own = asyncio.Event()
        self._starts[own] = frozenset(gpus)
        try:
            for end in earlier:
                await end.wait()
            yield
        finally:
            del self._starts[own]
            own.set()


async def examined(plan: EnginePlan, level: SleepLevel | None) -> dict[str, Fingerprint]:
    """The fingerprint of an engine that has just started, by its API root; it sleeps then at a level, if any, to make
    room for those that start later. Raises BackendError."""
    from coe.fleet.residency.vllm_actuator import VllmActuator

    name, environment = plan.spec.name, plan.spec.env or {}
    actuator = VllmActuator(lambda: {name: (plan.url,)}, keys={name: environment.get(ENGINE_KEY, "")})
    try:
        found = await actuator.examine(name)
        if level is not None:
            await actuator.sleep(name, level)
        return found
    finally:
        await actuator.aclose()


async def settled(processes: Collection[SupervisedProcess]) -> None:
    """Returns when each is ready or is not going to be, which its status says."""
    outcomes = await asyncio.gather(*(process.wait_ready() for process in processes), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, EngineError):
            raise outcome
