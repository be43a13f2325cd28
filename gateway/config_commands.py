"""`coe config plan`, `apply` and `rollback`."""

from __future__ import annotations

from pathlib import Path

from base.errors import ConfigError
from base.options import ConfigOption, DatabaseOption, DataOption
from base.visible_text import echo
from decision_log.admin_log import note_command, operator
from gateway.changes.history import History, InForce, previous
from router.config import CoeConfig, config_text

CONFIG, DATA = Path("experts.yaml"), Path("data")
WAIT_S = 30.0
"""A gateway looks every half second, then probes experts and loads the router again."""


def plan(config: ConfigOption = CONFIG, data_dir: DataOption = DATA) -> None:
    """Show what `coe config apply` would change, or why it would refuse."""
    show_changes(config_text(config), config, data_dir)


def apply(config: ConfigOption = CONFIG, data_dir: DataOption = DATA, database_url: DatabaseOption = None) -> int:
    """Have every running gateway of the data folder take experts.yaml as it is now, without a restart.

    All of it is checked first. Gateways swap within a second, and say so; requests that run keep what they had.
    """
    text = config_text(config)
    show_changes(text, config, data_dir)
    return tell(noted_history(data_dir, database_url).apply(text, text, operator()), data_dir)


def rollback(config: ConfigOption = CONFIG, data_dir: DataOption = DATA, database_url: DatabaseOption = None) -> int:
    """Put the previous configuration in force again. It stays, over restarts too, until experts.yaml changes."""
    history = noted_history(data_dir, database_url)
    found = history.current()
    text, in_file = history.text(previous(found)), config_text(config)
    show_changes(text, config, data_dir)
    status = tell(history.rollback(found, in_file, operator()), data_dir)
    if text != in_file:
        echo(f"{config} is as it was: put it right too, because other commands (`coe retrain`, `coe check`) read it")
    return status


def noted_history(data_dir: Path, database_url: str | None) -> History:
    """The configurations of a data folder; what is put in force gets a line in the admin log."""
    return History(data_dir, lambda _, *action: note_command(data_dir, database_url, *action))


def show_changes(text: str, config: Path, data_dir: Path) -> None:
    """Prints what a text changes. Raises ConfigError where a gateway would not take it."""
    from gateway.changes.difference import checked, differences

    history = History(data_dir)
    found = history.current()
    wanted = checked(text, config, data_dir, history.config(found.started))
    require_router(wanted, data_dir)
    changes = differences(history.config(found.number), wanted)
    for line in changes.values() or ["nothing changes"]:
        echo(line)


def require_router(config: CoeConfig, data_dir: Path) -> None:
    """Raises ConfigError where the live router does not fit."""
    from base.errors import RouterError
    from router.build import live_router
    from router.live_pointer import LIVE_FILE, ROUTERS_FOLDER

    try:
        if (data_dir / ROUTERS_FOLDER / LIVE_FILE).exists():
            live_router(config, data_dir)
    except RouterError as error:
        raise ConfigError(f"the live router does not fit: {error}") from error


def tell(found: InForce, data_dir: Path) -> int:
    """Waits for the gateways that run, and says what became of it: 1 where one of them does not serve it."""
    from base.progress import working
    from gateway.changes.confirmations import wait_for

    echo(f"configuration {found.number} is in force")
    with working("waiting for the gateways that run ..."):
        said = wait_for(History(data_dir).root, found.change, WAIT_S)
    if not said:
        echo(f"no gateway runs on {data_dir}: the next one to start takes it")
    for name, confirmed in said.items():
        late = f"not within {WAIT_S:g} s: it has not said whether it takes it"
        outcome = late if confirmed is None else confirmed.problem or "serves it"
        echo(f"gateway process {name.partition('-')[0]}: {outcome}")
    return int(any(confirmed is None or confirmed.problem for confirmed in said.values()))
