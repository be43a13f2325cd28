"""From another configuration to a gateway that serves with it. Log, retrieval, encoder and the engines that run stay as
they are; a new adapter on a base of llama.cpp, which loads adapters only when it starts, gets a process of its own. The
base's weights are mapped from one file, so they are in memory once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coe.base.errors import ConfigError
from coe.fleet.calls.connect import build_backend, ids_on_base, is_same_engine
from coe.fleet.calls.replicas import ExpertBackend
from coe.fleet.hosts.adapter_files import adapter_digest
from coe.fleet.hosts.engines import EngineAddresses, Fleet
from coe.fleet.vllm.addresses import read_vllm
from coe.fleet.vllm.command import adapter_folder
from coe.gateway.routers.live_router import router_loader
from coe.gateway.settings import engine_environment, expert_keys, read_secrets
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine, ExpertConfig

if TYPE_CHECKING:
    from coe.gateway.lifecycle.serve import Gateway
    from coe.gateway.parts import Parts


@dataclass(frozen=True)
class AddedEngine:
    """An engine that was started for one expert, beside those of the start. `digest` is of the adapter's files."""

    entry: ExpertConfig
    digest: str
    fleet: Fleet
    addresses: EngineAddresses


@dataclass(frozen=True)
class Swap:
    """Has the gateway serve with other configurations: `await swap(config)`.

    Args:
        started: the configuration that the gateway started with, whose engines run.
        addresses: those of these engines.
        folder: where experts.yaml lies.
    """

    gateway: Gateway
    data_dir: Path
    started: CoeConfig
    addresses: EngineAddresses
    folder: Path = Path()
    _added: dict[str, AddedEngine] = field(default_factory=dict)
    _replaced: list[AddedEngine] = field(default_factory=list)

    async def __call__(self, config: CoeConfig) -> None:
        """Raises ConfigError: an expert has no address, or the live router does not fit."""
        before, secrets = self.gateway.parts, read_secrets(config)
        current = before.live.current
        await self._start_added(config)
        backends = await asyncio.to_thread(self._backends, before, config, secrets)
        loader = router_loader(config, None if current is None else current.encoder)
        parts = before.changed(
            config, before.pool.changed(backends), before.live.changed(loader), expert_keys(config, secrets)
        )
        try:
            await parts.start_changed()
            if current is not None and parts.live.current is None:
                raise ConfigError(f"the live router does not fit: {parts.live.last_error}")
        except BaseException:
            await parts.close_changed(before.pool.backends)
            raise
        self.gateway.change(parts)

    async def aclose(self) -> None:
        """Stops the engines that were added, behind the last request."""
        await asyncio.gather(*(each.fleet.stop() for each in (*self._added.values(), *self._replaced)))

    async def _start_added(self, config: CoeConfig) -> None:
        """Starts an engine for each adapter of llama.cpp that none has. One that it replaces ends with the gateway,
        because requests may run on it.

        Raises:
            RouterError: one does not start.
        """
        for name, entry in config.experts.items():
            was, added = self.started.experts.get(name), self._added.get(name)
            if entry.engine is not Engine.LLAMACPP or entry.adapter is None:
                continue
            if was is not None and is_same_engine(was, entry):
                continue
            digest = await asyncio.to_thread(adapter_digest, adapter_folder(entry, self.folder))
            if added is not None and is_same_engine(added.entry, entry) and added.digest == digest:
                continue
            alone, environment = config.model_copy(update={"experts": {name: entry}}), engine_environment(config)
            label = f"{name}-{len(self._added) + len(self._replaced)}"
            fleet = Fleet(alone, self.folder, self.data_dir, environment, (Engine.LLAMACPP,), label=label)
            addresses = await fleet.start()
            self._replaced.extend([added] if added else [])
            self._added[name] = AddedEngine(entry, digest, fleet, addresses)

    def _backends(self, before: Parts, config: CoeConfig, secrets: Mapping[str, str]) -> dict[str, ExpertBackend]:
        """One for each expert: that of before where it serves the new entry too. Raises ConfigError."""
        urls = self.addresses.urls | read_vllm(self.data_dir).urls
        backends = {}
        for name, entry in config.experts.items():
            was = before.config.experts.get(name)
            if was is not None and is_same_engine(was, entry) and name not in self._added:
                backends[name] = before.pool.backend(name)
                continue
            ids = ids_on_base(self.started, entry.model, self.addresses.lora_ids)
            roots = entry.roots or urls.get(name, ())
            added = self._added.get(name)
            if added is not None and is_same_engine(added.entry, entry):
                ids, roots = added.addresses.lora_ids, added.addresses.urls[name]
            backends[name] = build_backend(config, name, roots, ids, secrets)
        return backends
