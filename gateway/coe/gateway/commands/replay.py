"""`coe replay`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.errors import ConfigError
from coe.base.visible_text import echo
from coe.cli.options import ConfigOption, DataOption
from coe.decision_log.connections import opened_database
from coe.decision_log.privacy import load_key

if TYPE_CHECKING:
    from coe.decision_log.decision_record import DecisionRecord
    from coe.gateway.routers.replay import Replay
    from coe.router.pipeline import Router

MAX_VALUE_CHARS = 100


def replay(
    decision_id: Annotated[str, typer.Argument(help="decision to make again")],
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
) -> int:
    """Make a logged decision again, bit for bit. Exit status 0 when it is the same to the last bit, 1 when not."""
    from coe.decision_log.replayed import NotReplayableError, routed
    from coe.gateway.routers.replay import replay as again

    with opened_database(data_dir) as database:
        record = database.get_decision(decision_id)
    if record is None:
        raise ConfigError(
            f"there is no decision '{decision_id[:64]}' in the database; if it is still on its way, `coe log drain`"
        )
    try:
        logged, _ = routed(record)
        found = again(router_of(config, data_dir, logged.router_version), record, load_key(data_dir))
    except NotReplayableError as error:
        raise NotReplayableError(f"{decision_id} cannot be made again: {error}") from error
    for line in replay_lines(record, found):
        echo(line)
    return 1 if found.differences else 0


def replay_lines(record: DecisionRecord, found: Replay) -> Iterator[str]:
    decision = found.decision
    draw = "nothing was drawn" if decision.seed is None else f"drawn with seed {decision.seed}"
    where = f"router {decision.router_version}, policy {decision.policy}, {draw}"
    if not found.differences:
        yield f"{record.decision_id}: the same to the last bit: {decision.category} -> {decision.expert} ({where})"
    else:
        yield f"{record.decision_id}: comes out otherwise in {len(found.differences)} fields ({where})"
        for name, (was, now) in found.differences.items():
            yield f"  {name}: logged {shorten(was)}, now {shorten(now)}"
    if not found.is_known:
        yield (
            "  the embedding does not have the logged hash: it was changed, or the hash is by another data folder's "
            "log.key"
        )
    if found.has_new_settings:
        yield (
            f"  experts.yaml decides otherwise now than it did then for policy {decision.policy}: experts, "
            "capabilities, budgets, prices, pins, exploration or alpha changed"
        )


def shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 3]}..."


def router_of(config: Path, data_dir: Path, version: str) -> Router:
    from coe.fleet.router_registry import Registry
    from coe.router.build import load_router
    from coe.router.config.composition import load_config
    from coe.router.live_pointer import ROUTERS_FOLDER

    return load_router(load_config(config), Registry(data_dir / ROUTERS_FOLDER).folder(version))
