"""Checks before a gateway starts, and `coe serve`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from coe.base.errors import ConfigError
from coe.base.private_folder import make_private
from coe.decision_log.default_database import DATABASE_FILE, default_database_url
from coe.fleet.processes.stop_signal import Life, live_until_signal
from coe.gateway.changes.in_force import InForce, Start, find_start, put_start
from coe.gateway.http.listener import bind, check_exposure, is_loopback
from coe.gateway.settings import Settings
from coe.router.config.composition import CoeConfig
from coe.router.live_pointer import category_warnings, live_manifest, pin_problems

if TYPE_CHECKING:
    from coe.gateway.lifecycle.composition import Reporter

logger = logging.getLogger(__name__)


async def run_serve(settings: Settings, reporter: Reporter) -> None:
    """The gateway alone, with the embedded experts where experts.yaml has some; nothing is measured or fitted.

    Raises:
        RouterError: whatever kept it from starting.
    """
    start, warnings = agreed_config(settings)
    config = start.config
    for warning in warnings:
        logger.warning("%s", warning)

    async def program(life: Life) -> None:
        found = await noted_start(settings, start)
        from coe.gateway.lifecycle.composition import running_composition

        async with running_composition(settings, config, reporter, found) as gateway:
            life.is_starting = False
            await life.stop.wait()
            await gateway.drain(life.stop.urgent)

    await live_until_signal(program)


def agreed_config(settings: Settings) -> tuple[Start, list[str]]:
    """The configuration to start with, and warnings of what the live router does not know of it.

    Raises:
        ConfigError: the file is wrong, or asks for a pin that the live router cannot keep.
    """
    start, manifest = find_start(settings.config_path, settings.data_dir), live_manifest(settings.data_dir)
    config = start.config
    warnings = unstated(config)
    if manifest is None:
        return start, [f"{settings.config_path}: {line}" for line in warnings]
    if problems := [f"{settings.config_path}: {line}" for line in pin_problems(config, manifest)]:
        raise ConfigError("\n".join(problems), problems)
    return start, [f"{settings.config_path}: {line}" for line in (*warnings, *category_warnings(config, manifest))]


def unstated(config: CoeConfig) -> list[str]:
    """Warnings of what the file leaves to a default that costs: a policy that does not explore learns nothing about
    the experts that it does not choose, and cached tokens without a price are charged in full."""
    uncached = [
        f"experts.{name}.price.cache_read is missing, so prompt tokens that its provider had cached cost as much as "
        "others; allowed: USD per million tokens, or 'price: auto' for the prices of litellm's table"
        for name, entry in config.experts.items()
        if entry.price.get("input") and "cache_read" not in entry.price
    ]
    return uncached + [
        f"policies.{name}.exploration is missing, so '{name}' tries no expert but the planned one, and nothing is "
        "learned about the others; allowed: a budget, such as 0.5%, or 'off' if that is meant"
        for name, policy in config.policies.items()
        if "exploration" not in policy.model_fields_set and len(config.experts) > 1
    ]


async def noted_start(settings: Settings, start: Start) -> InForce:
    """Checks what needs nothing that runs, and makes and notes the start. Raises ConfigError, StoreError."""
    bind(settings.host, settings.port).close()  # before anything is started: to choose another one costs no wait
    await asyncio.to_thread(require_keys, settings, start.config)
    make_data_folder(settings)
    return await asyncio.to_thread(put_start, settings.data_dir, start)


def require_keys(settings: Settings, config: CoeConfig) -> None:
    """Refuses an address that others can reach when nobody would need a key. Raises ConfigError, StoreError."""
    if not is_loopback(settings.host):
        check_exposure(settings.host, has_keys=bool(settings.api_keys) or asks_for_keys(settings, config))


def asks_for_keys(settings: Settings, config: CoeConfig) -> bool:
    """Returns True where `coe keys` has made a key, or experts.yaml names an identity provider. Raises StoreError."""
    from coe.decision_log.connections import opened_database
    from coe.gateway.keys.key_store import KeyStore

    if config.gateway.oidc is not None:
        return True
    url, is_there = settings.database_url.get_secret_value(), (settings.data_dir / DATABASE_FILE).exists()
    if url == default_database_url(settings.data_dir) and not is_there:
        return False  # and none is made, so a start that is refused leaves nothing
    with opened_database(settings.data_dir) as database:
        return bool(KeyStore(database).holders().keys)


def make_data_folder(settings: Settings) -> None:
    """Makes it so that only its owner can read it. Raises ConfigError when that fails."""
    try:
        make_private(settings.data_dir)
    except OSError as error:
        raise ConfigError(f"COE_DATA_DIR: {settings.data_dir} cannot be made ({error.strerror})") from error
