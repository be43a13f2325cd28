"""From experts.yaml to running engines and the addresses of their experts.

Two kinds run on this host: the embedded llama.cpp (one process per base model, experts are adapters on it) and vLLM
(one process per model and arguments). Engines that others run have a `url` in experts.yaml and are not our business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coe.base.errors import BackendError, EngineError
from coe.fleet.engine_plans import EnginePlan, llamacpp_plans, refuse_taken_ports, vllm_plans
from coe.fleet.gpus import named_gpus
from coe.fleet.process import ProcessState, ProcessStatus, SupervisedProcess
from coe.fleet.vllm_addresses import Desired, EngineRecord
from coe.router.config import CoeConfig
from coe.router.expert_config import Engine


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
        self._running = {name: urls for name, urls in (running or {}).items() if name in config.experts}
        self._plans: list[EnginePlan] = []
        self._processes: list[SupervisedProcess] = []
        self._desired: dict[str, Desired] = {}  # by engine; those left out are to be awake

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
            )
            for plan, (status, _) in zip(self._plans, self.statuses, strict=True)
        ]

    @property
    def statuses(self) -> tuple[tuple[ProcessStatus, tuple[str, ...]], ...]:
        """Each process with the experts it serves."""
        return tuple((process.status, plan.experts) for process, plan in zip(self._processes, self._plans, strict=True))

    async def start(self) -> EngineAddresses:
        """Starts the engines, as many at once as the GPUs hold, and returns when all serve, sleep or have failed. One
        that failed leaves the others running.

        Raises:
            MissingWeightsError, ArtifactError, ConfigError: an entry names what is not there.
            EngineError: none of them started.
        """
        plans = await asyncio.to_thread(self._plan)
        refuse_taken_ports(plans)
        self._plans = plans
        self._processes = [self._supervised(number) for number in range(len(plans))]
        try:
            for step in sorted({plan.step for plan in plans}):
                await self._start_step([number for number, plan in enumerate(plans) if plan.step == step])
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
        """Ends the engines that are to be stopped, and starts those that are to be awake and have ended: on one GPU one
        after the other, because vLLM measures the free memory while it starts."""
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
            starting = [each for place, each in enumerate(self._plans) if self._state(place) is ProcessState.STARTING]
            is_free = {gpu for each in starting for gpu in gpus_of(each)}.isdisjoint(gpus_of(plan))
            if is_free and self._is_to_run(plan) and self._state(number) is ProcessState.STOPPED:
                self._processes[number] = self._supervised(number)
                self._processes[number].start()

    def _is_to_run(self, plan: EnginePlan) -> bool:
        """False for one that has ended asleep, too: others may have its GPU memory by then."""
        return self._desired.get(plan.spec.name, Desired.AWAKE) is Desired.AWAKE

    def _state(self, number: int) -> ProcessState:
        return self._processes[number].status.state

    def _supervised(self, number: int) -> SupervisedProcess:
        plan = self._plans[number]
        return SupervisedProcess(plan.spec, may_restart=lambda: self._is_to_run(plan))

    async def _start_step(self, numbers: Collection[int]) -> None:
        """Starts engines together; puts those to sleep that have to make room for others."""
        for number in numbers:
            self._processes[number].start()
        await settled([self._processes[number] for number in numbers])
        ready = [self._plans[number] for number in numbers if self._state(number) is ProcessState.READY]
        sleepers = [(plan, plan.sleeps_at) for plan in ready if plan.sleeps_at is not None]
        if not sleepers:
            return
        from coe.fleet.residency.vllm_actuator import VllmActuator

        actuator = VllmActuator(lambda: {plan.spec.name: (plan.url,) for plan, _ in sleepers})
        try:
            await asyncio.gather(*(actuator.sleep(plan.spec.name, level) for plan, level in sleepers))
        except BackendError as error:
            raise EngineError(str(error)) from error
        finally:
            await actuator.aclose()
        self._desired |= {plan.spec.name: Desired.ASLEEP for plan, _ in sleepers}

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


async def settled(processes: Collection[SupervisedProcess]) -> None:
    """Returns when each is ready or is not going to be, which its status says."""
    outcomes = await asyncio.gather(*(process.wait_ready() for process in processes), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, EngineError):
            raise outcome
