"""`coe config apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coe.base.visible_text import echo
from coe.cli.options import ConfigOption, DataOption
from coe.decision_log.admin_log import note_command, operator
from coe.router.config import config_text

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="only show what would change, or why it is refused")]
BackOption = Annotated[bool, typer.Option("--back", help="take the configuration that was in force before, instead")]


def apply(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    dry_run: DryRunOption = False,
    back: BackOption = False,
) -> None:
    """Have every running gateway of the data folder take experts.yaml as it is now, without a restart.

    All of it is checked first. Gateways swap within a second; requests that run keep what they had. A step back holds,
    over restarts too, until experts.yaml changes.
    """
    from coe.gateway.changes.difference import checked, differences
    from coe.gateway.changes.in_force import current, parsed, put, text_before
    from coe.router.build import live_router
    from coe.router.live_pointer import live_manifest

    found, in_file = current(data_dir), config_text(config)
    text = text_before(found) if back else in_file
    wanted = checked(text, config, data_dir, parsed(found.started, config))
    if live_manifest(data_dir) is not None:
        live_router(wanted, data_dir)  # raises where it does not fit
    for line in differences(parsed(found.text, config), wanted).values() or ["nothing changes"]:
        echo(line)
    if dry_run:
        return
    after = put(data_dir, text, in_file, operator())
    numbers = str(after.number - 1), str(after.number)
    note_command(data_dir, "back" if back else "apply", "configuration", *numbers)
    echo(f"configuration {after.number} is in force; `GET /v1/admin/config` says whether a gateway serves it")
    if text != in_file:
        echo(f"{config} is as it was: put it right too, because other commands (`coe retrain`, `coe check`) read it")
