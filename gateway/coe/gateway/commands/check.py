"""`coe check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coe.base.visible_text import echo
from coe.cli.options import GATEWAY_URL, ConfigOption, DataOption, api_key

ANSWERS_S = 2.0


def check(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    online: Annotated[
        bool, typer.Option("--online", help="ask engines for their models and states, and the gateway of this host")
    ] = False,
) -> None:
    """Validate experts.yaml: keys, names, plugin options, weights, adapters, variables, budgets, the live router. List
    its experts, with the addresses of the vLLM engines that run."""
    import asyncio
    import os

    from coe.base.errors import ConfigError, RouterError
    from coe.cli.progress import working
    from coe.cli.terminal import Terminal
    from coe.fleet.figures import read_figures
    from coe.fleet.hosts.experts_up import engine_lines, experts_table
    from coe.fleet.hosts.vllm_gpus import placed_processes, plan_lines
    from coe.fleet.vllm.addresses import read_vllm
    from coe.gateway.check import (
        address_warnings,
        engine_problems,
        find_problems,
        floor_lines,
        not_asked,
        resolved_lines,
    )
    from coe.gateway.lifecycle.start import unstated
    from coe.router.build import live_router
    from coe.router.config.composition import load_config
    from coe.router.live_pointer import LIVE_FILE, ROUTERS_FOLDER, category_warnings, live_manifest, pin_problems

    loaded, console = load_config(config), Terminal()
    addresses = read_vllm(data_dir).urls
    console.print(experts_table(loaded, addresses))
    figures = read_figures(data_dir)
    problems = find_problems(loaded, config, os.environ, figures)
    manifest = live_manifest(data_dir)
    if manifest is not None:
        problems += [f"{config}: {line}" for line in pin_problems(loaded, manifest)]
    if online:
        with working("asking engines for their models ..."):
            found = asyncio.run(engine_problems(loaded, os.environ, addresses))
            running = [*asyncio.run(engine_lines(data_dir)), *asyncio.run(troubles(GATEWAY_URL))]
        for line in running:
            console.print(line, soft_wrap=True)
        problems += [f"{config}: {line}" for line in found]
    if problems:
        raise ConfigError("\n".join(problems), problems)
    placed = placed_processes(loaded, config.parent, os.environ, figures)
    for line in [*resolved_lines(loaded), *plan_lines(placed)]:
        console.print(line, soft_wrap=True)
    warnings = [*address_warnings(loaded), *unstated(loaded)]
    warnings += [] if manifest is None else category_warnings(loaded, manifest)
    if (data_dir / ROUTERS_FOLDER / LIVE_FILE).exists():  # its manifest may be what cannot be read
        try:
            for line in floor_lines(live_router(loaded, data_dir).policies):
                console.print(line, soft_wrap=True)
        except RouterError as error:
            warnings.append(f"a gateway will not be ready: {error}")
    for line in warnings:
        echo(f"warning: {config}: {line}", to_stderr=True)
    if online and (others := not_asked(loaded)):
        console.print(f"not asked, because their engines list no models: {', '.join(others)}", soft_wrap=True)
    console.print(
        f"{config}: {len(loaded.experts)} experts, {len(loaded.categories)} categories: no problem found",
        soft_wrap=True,
    )


async def troubles(gateway: str) -> list[str]:
    """A sentence of the running gateway on each expert that gets no requests now; empty where no gateway answers."""
    import aiohttp

    from coe.base.json_text import JsonError, from_json

    key, timeout = api_key(), aiohttp.ClientTimeout(total=ANSWERS_S)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.get(f"{gateway}/experts") as answer,
        ):
            found = from_json(await answer.read())["data"]
    except (aiohttp.ClientError, TimeoutError, JsonError, LookupError, TypeError):
        return []
    away = (each for each in found if each["state"] != "up")
    return [each["problem"] or f"expert {each['name']} is {each['state']}" for each in away]
