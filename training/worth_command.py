"""`coe experts ls`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from base.errors import ConfigError, DataError, StoreError
from base.json_text import JsonError, from_json
from base.options import GATEWAY_URL, ConfigOption, DataOption, JsonOption, api_key
from base.progress import console_progress, working
from base.terminal import Grid
from base.visible_text import echo

if TYPE_CHECKING:
    from fleet.router_registry import Registry
    from training.expert_worth import CompositionWorth, ExpertWorth

MISSED_IN = 3
ANSWERS_S = 2.0


def experts_ls(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    as_json: JsonOption = False,
) -> None:
    """List the engines that run, the experts that get no requests now, and what would be lost without each expert by
    the graded prompts of <data>/outcomes."""
    from fleet.experts_up import engine_lines
    from fleet.router_registry import Registry
    from router.config import load_config
    from training.expert_worth import read_worth
    from training.summary import result_console

    for line in [] if as_json else [*asyncio.run(engine_lines(data_dir)), *asyncio.run(troubles())]:
        echo(line)
    try:
        with working("leaving each expert out in turn ..."):
            worth = read_worth(config, data_dir / "outcomes", live_mix(Registry(data_dir / "routers")))
    except DataError as error:
        if as_json:
            raise
        for name, entry in load_config(config).experts.items():
            echo(f"{name}: {entry.engine}, {entry.model}")
        echo(f"what each is worth is unknown: {error}")
        return
    if as_json:
        result_console().print_json(json.dumps(worth.model_dump(mode="json")))
    else:
        print_worth(worth)


async def troubles() -> list[str]:
    """A sentence of the running gateway on each expert that gets no requests now; empty where no gateway answers."""
    import aiohttp

    headers, timeout = (
        {"authorization": f"Bearer {key}"} if (key := api_key()) else {},
        aiohttp.ClientTimeout(total=ANSWERS_S),
    )
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.get(f"{GATEWAY_URL}/experts") as answer,
        ):
            found = from_json(await answer.read())["data"]
    except (aiohttp.ClientError, TimeoutError, JsonError, LookupError, TypeError):
        return []
    away = (each for each in found if each["state"] != "up")
    return [each["problem"] or f"expert {each['name']} is {each['state']}" for each in away]


def print_loop(config: Path, data_dir: Path) -> None:
    """Prints what the last 30 days of learning were worth, as far as a log says so."""
    from training.loop_worth import loop_sentences, measure_loop, request_of

    now = datetime.now(UTC)
    try:
        with console_progress() as progress:
            loop = measure_loop(request_of(config, data_dir, now), now, progress)
    except (ConfigError, DataError, StoreError) as error:
        echo(f"what learning was worth is unknown: {error}")
        return
    echo("the last 30 days:")
    for sentence in loop_sentences(loop):
        echo(f"  {sentence}")


def live_mix(registry: Registry) -> Mapping[str, float]:
    """Share of each category in the traffic, as the live router knows it; nothing without one."""
    from router.artifact import load_artifact
    from router.build import evidence_of
    from router.types import GENERAL

    pointer = registry.live()
    if pointer is None:
        return {}
    artifact = load_artifact(registry.folder(pointer.version))
    return dict(
        zip((*artifact.manifest.categories, GENERAL), evidence_of(artifact).mass.astype(float).tolist(), strict=True)
    )


def print_worth(worth: CompositionWorth) -> None:
    from training.expert_worth import sentence
    from training.summary import result_console

    console = result_console()
    columns = ("expert", "serves", "lost", "lost most in", "GB freed", "per GB", "$ per 1,000 saved", "per $")
    title = f"quality lost without each expert, in points, on {worth.n} graded prompts"
    table = Grid(*columns, title=title, title_justify="left")
    for one in worth.experts:
        table.add_row(*cells_of(one))
    console.print(table)
    console.print(sentence(worth))


def cells_of(one: ExpertWorth) -> tuple[str, ...]:
    from training.summary import in_points

    most = sorted(one.by_category.items(), key=lambda pair: -pair[1].value)[:MISSED_IN]
    return (
        one.expert,
        ", ".join(one.serves) or "nothing",
        one.unknown if one.loss is None else in_points(one.loss),
        ", ".join(f"{name} {100 * metric.value:.0f}" for name, metric in most if metric.value > 0),
        one.freed,
        in_points(one.loss_per(one.freed_gb)),
        f"{one.saved_usd:.3g}",
        in_points(one.loss_per(one.saved_usd)),
    )
