"""The controller of a gateway, from experts.yaml and the engines that run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from coe.base.errors import ConfigError, EngineError
from coe.fleet.figures import Figures, read_figures
from coe.fleet.processes.folder_lock import FolderLock, holder_of
from coe.fleet.residency.controller import Controller, known_state
from coe.fleet.residency.memory import Memory, Resident
from coe.fleet.residency.policies import Regret
from coe.fleet.residency.scheduler import Scheduler
from coe.fleet.residency.types import Residency, published_times
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.vllm.addresses import VllmRecord, read_vllm
from coe.fleet.vllm.command import engine_flags, model_argument
from coe.fleet.vllm.desired_state import DesiredProcesses
from coe.fleet.vllm.memory import gpus_of, size_of
from coe.fleet.vllm.model_sizes import read_model
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine
from coe.router.config.residency import ResidencyConfig

ONLY_GPU = "0"


async def controller_of(
    config: CoeConfig,
    wanted: ResidencyConfig,
    folder: Path,
    data_dir: Path,
    urls: Mapping[str, Sequence[str]],
) -> Controller:
    """A controller that has looked at every engine.

    Args:
        wanted: the section of experts.yaml.
        folder: where experts.yaml lies.
        urls: API roots per expert whose engines this host runs; others have their `url`.

    Raises:
        ConfigError: what is awake, or is to be, exceeds the memory that experts.yaml names.
        DataError: the file of the engines is damaged.
        EngineError: another process decides for this data folder.
    """
    lock = claim(data_dir)
    async with AsyncExitStack() as unless_made:
        unless_made.callback(lock.release)
        addresses = {name: entry.roots for name, entry in config.engine_entries.items() if entry.roots}
        addresses |= {name: tuple(roots) for name, roots in urls.items()}
        record = read_vllm(data_dir)
        residents = residents_of(config, wanted, folder, addresses, record, read_figures(data_dir))
        named = {name: os.environ.get(entry.api_key_env or "", "") for name, entry in config.engine_entries.items()}
        actuator = VllmActuator(lambda: addresses, DesiredProcesses(data_dir) if record.engines else None, named)
        unless_made.push_async_callback(actuator.aclose)
        managed = [each for each in residents if each.awake_gib > 0]
        found = await asyncio.gather(*(known_state(actuator, each.experts[0]) for each in managed))
        states = {each.name: Residency.AWAKE for each in residents}
        states |= {each.name: state for each, state in zip(managed, found, strict=True)}
        devices = dict.fromkeys(sorted({device for each in residents for device in each.devices}), wanted.memory_gb)
        memory = Memory(devices, wanted.host_memory_gb)
        try:
            scheduler = Scheduler(residents, memory, Regret(residents), states)
        except ValueError as error:
            raise ConfigError(f"residency: {error}") from error
        unless_made.pop_all()
    engines = () if config.retrieval is None else config.retrieval.engines
    pooling = {root: name for name in engines for root in addresses.get(name, ())}
    return Controller(scheduler, actuator, wanted, lock=lock, pooling=pooling)


def claim(data_dir: Path) -> FolderLock:
    """The right to decide which engines are awake. Raises EngineError."""
    folder = data_dir / "residency"
    folder.mkdir(parents=True, exist_ok=True)
    if (lock := FolderLock.try_acquire(folder)) is None:
        raise EngineError(f"process {holder_of(folder)}, another gateway, decides which engines are awake")
    return lock


def residents_of(
    config: CoeConfig,
    wanted: ResidencyConfig,
    folder: Path,
    addresses: Mapping[str, tuple[str, ...]],
    record: VllmRecord,
    figures: Figures,
) -> tuple[Resident, ...]:
    """One a vLLM engine with an address, or its replicas together, with every expert that it serves; others need no
    memory and are awake."""
    gpus: dict[str, list[str]] = {}
    for engine in record.engines:
        for name in engine.experts:
            gpus.setdefault(name, []).extend(each.strip() for each in engine.gpus.split(",") if each.strip())
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, entry in config.engine_entries.items():
        is_managed = entry.engine is Engine.VLLM and name in addresses and len(entry.roots) < 2
        groups.setdefault(addresses[name] if is_managed else (name,), []).append(name)
    return tuple(
        resident_of(
            config,
            wanted,
            folder,
            tuple(names),
            gpus.get(names[0], []),
            figures,
            is_managed=roots in addresses.values(),
        )
        for roots, names in groups.items()
    )


def resident_of(
    config: CoeConfig,
    wanted: ResidencyConfig,
    folder: Path,
    names: tuple[str, ...],
    gpus: Sequence[str],
    figures: Figures,
    *,
    is_managed: bool,
) -> Resident:
    entries = [config.engine_entries[name] for name in names]
    params_b = max(entry.params_b for entry in entries)
    times = published_times(max(params_b, 0.1), figures.times)
    if not is_managed:
        return Resident(names[0], 0.0, 0.0, times, names, (), sleeper_gib=0.0, is_pinned=True)
    first, flags = entries[0], engine_flags(config, entries[0])
    devices = tuple(gpus) or (ONLY_GPU,) * gpus_of(flags) * first.replicas
    model = read_model(model_argument(first.model, folder), os.environ | config.vllm.env | first.engine_env)
    size = size_of(entries, flags, model, wanted.memory_gb, figures)
    return Resident(
        names[0],
        awake_gib=size.gib * len(devices),
        host_gib=size.host_gib * first.replicas,
        times=times,
        experts=names,
        devices=devices,
        sleeper_gib=figures.sleeper_gib,
        is_pinned=not set(names).isdisjoint(wanted.pins),
    )
