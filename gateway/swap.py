"""From another configuration to a gateway that serves with it. Engines, log, retrieval and encoder stay as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from base.errors import ConfigError
from fleet.connect import build_backend, ids_on_base, is_same_engine
from fleet.engines import EngineAddresses
from fleet.vllm_addresses import read_vllm_addresses
from gateway.parts import Parts
from gateway.serve import Gateway, RouterLoader, expert_keys
from gateway.settings import environment_secrets
from router.config import CoeConfig
from router.protocols import ChatBackend


@dataclass(frozen=True)
class Swap:
    """Prepares parts for other configurations: `await swap(config)`.

    Args:
        started: the configuration that the gateway started with, whose engines run.
        addresses: those of these engines.
        share: makes of a configuration what this process serves with.
    """

    gateway: Gateway
    data_dir: Path
    started: CoeConfig
    addresses: EngineAddresses
    share: Callable[[CoeConfig], CoeConfig]

    async def __call__(self, whole: CoeConfig) -> PreparedParts:
        """Parts that have started. Raises ConfigError: an expert has no address, or the live router does not fit."""
        before, config = self.gateway.parts, self.share(whole)
        secrets, current = environment_secrets(config), before.live.current
        backends = await asyncio.to_thread(self._backends, before, config, secrets)
        loader = RouterLoader(config, None if current is None else current.encoder)
        parts = before.changed(
            config, before.pool.changed(backends), before.live.changed(loader), expert_keys(config, secrets)
        )
        prepared = PreparedParts(self.gateway, parts)
        try:
            await parts.start_changed()
            if current is not None and parts.live.current is None:
                raise ConfigError(f"the live router does not fit: {parts.live.last_error}")
        except BaseException:
            await prepared.drop()
            raise
        return prepared

    def _backends(self, before: Parts, config: CoeConfig, secrets: Mapping[str, str]) -> dict[str, ChatBackend]:
        """One for each expert: that of before where it serves the new entry too. Raises ConfigError."""
        urls = self.addresses.urls | read_vllm_addresses(self.data_dir)
        backends = {}
        for name, entry in config.experts.items():
            was = before.config.experts.get(name)
            if was is not None and is_same_engine(was, entry):
                backends[name] = before.pool.backend(name)
            else:
                ids = ids_on_base(self.started, entry.model, self.addresses.lora_ids)
                backends[name] = build_backend(name, entry, entry.url or urls.get(name), ids, secrets)
        return backends


@dataclass(frozen=True)
class PreparedParts:
    """Parts that have started and serve nobody yet."""

    gateway: Gateway
    parts: Parts

    def serve(self) -> None:
        self.gateway.change(self.parts)

    async def drop(self) -> None:
        await self.parts.close_changed(self.gateway.parts.pool.backends)
