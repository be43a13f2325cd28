"""`coe router try`, `coe router promote` and `coe router rollback`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from base.options import ConfigOption, DatabaseOption, DataOption, with_options
from base.visible_text import echo
from router.live_pointer import CanaryTerms, Trial

VersionArgument = Annotated[str, typer.Argument(help="router version, or an unambiguous beginning of one")]


def require_loadable(config: Path, folder: Path) -> None:
    """Refuses a router that gateways could not load: each would refuse it, and say so only in its log. Raises
    ConfigError, also where experts.yaml is wrong."""
    from base.errors import ConfigError, RouterError
    from router.build import load_router
    from router.config import load_config

    loaded = load_config(config)
    try:
        load_router(loaded, folder)
    except RouterError as error:
        raise ConfigError(f"nothing was changed: gateways could not load that router with {config}: {error}") from error


@with_options
def router_try(
    version: VersionArgument,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    database_url: DatabaseOption = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="decide alongside the live router, be logged, and serve no request")
    ] = False,
    *,
    terms: CanaryTerms,
) -> None:
    """Let a router serve a share of the conversations; it is withdrawn automatically once it is shown to be worse."""
    from base.errors import ConfigError
    from decision_log.admin_log import note_command
    from fleet.router_registry import Registry

    if shadow and terms != CanaryTerms():
        raise ConfigError("--shadow: a router that serves no request has no share and no margins")
    registry = Registry(data_dir / "routers")
    folder = registry.folder(version)
    require_loadable(config, folder)
    trial = Trial.begun(folder.name, datetime.now(UTC).timestamp(), None if shadow else terms)
    pointer = registry.try_out(trial)
    note_command(data_dir, database_url, "try", "router", pointer.version, trial.version)
    if shadow:
        echo(f"router {trial.version} decides in the shadow of {pointer.version}; `coe router rollback` ends that")
        return
    echo(f"router {trial.version} serves {terms.share:.2%} of the conversations, {pointer.version} the others")
    losses = f"lose {terms.margin:g} of mean reward, or to fail {terms.error_margin:g} more often"
    echo(f"it is withdrawn once shown to {losses}")
    echo(f"`coe router promote {trial.version[:8]}` makes it live, `coe router rollback` withdraws it")


def router_promote(
    version: VersionArgument,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    database_url: DatabaseOption = None,
) -> None:
    """Make a router the live one; running gateways take it over within two seconds. A trial ends."""
    from decision_log.admin_log import note_command
    from fleet.router_registry import Registry

    registry = Registry(data_dir / "routers")
    require_loadable(config, registry.folder(version))
    before = registry.live()
    pointer = registry.promote(version, datetime.now(UTC))
    note_command(data_dir, database_url, "promote", "router", "" if before is None else before.version, pointer.version)
    echo(f"router {pointer.version} is live")


def router_rollback(data_dir: DataOption = Path("data"), database_url: DatabaseOption = None) -> None:
    """End the trial if one runs, else go back to the router that was live before."""
    from decision_log.admin_log import note_command
    from fleet.router_registry import Registry

    registry = Registry(data_dir / "routers")
    before = registry.live()
    pointer = registry.rollback(datetime.now(UTC))
    assert before is not None  # there was something to go back from
    ended = (before.trial or before).version
    note_command(data_dir, database_url, "rollback", "router", ended, pointer.version)
    if before.trial is not None:
        echo(f"router {before.trial.version} is withdrawn, {pointer.version} serves everybody")
    else:
        echo(f"router {pointer.version} is live again")
