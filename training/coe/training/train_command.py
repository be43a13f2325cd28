"""The commands of the training package: `coe train`, `coe retrain`, `coe router ...`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from coe.base.errors import ConfigError, RouterError
from coe.base.shipped import query_folder
from coe.base.visible_text import echo
from coe.cli.options import (
    ConfigOption,
    DataOption,
    JsonOption,
    SinceOption,
    with_options,
)
from coe.cli.progress import console_progress
from coe.fleet.router_registry import Registry
from coe.router.live_pointer import CanaryTerms, Trial
from coe.training.fit_options import FitOptions, Terms

OutcomesOption = Annotated[
    Path | None,
    typer.Option("--outcomes", help="outcome table, or folder of several; default: all in <data>/outcomes"),
]
QueriesOption = Annotated[
    Path | None,
    typer.Option("--queries", help="folder of labelled queries; default: <data>/queries, or else the seed set"),
]


@with_options
def train(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    outcomes: OutcomesOption = None,
    queries: QueriesOption = None,
    *,
    options: FitOptions,
) -> None:
    """Fit a router from labelled queries and outcomes and make it the live one."""
    from coe.router.config.composition import load_config
    from coe.training.fit_inputs import TrainRequest, fit_configured
    from coe.training.summary import print_router
    from coe.training.train_notes import (
        notes_on_new_categories,
        notes_on_training,
        notes_without_grades,
        readable_pointer,
        require_sure,
    )

    registry, now = Registry(data_dir / "routers"), datetime.now(UTC)
    request = TrainRequest(
        config, outcomes or data_dir / "outcomes", queries or query_folder(data_dir), data_dir / "cache", options
    )
    with console_progress() as progress:
        artifact = fit_configured(registry.root, request, now=now, progress=progress)
    loaded = load_config(config)
    notes = (
        *notes_without_grades(artifact, loaded),
        *notes_on_new_categories(artifact),
        *notes_on_training(registry, artifact, request),
    )
    print_router(artifact, config)
    live = readable_pointer(registry)
    if live is None or live.version != artifact.manifest.version:
        require_sure(artifact, loaded)
        registry.promote(artifact.manifest.version, now)
    for note in notes:
        echo(note)


@with_options
def retrain(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    outcomes: OutcomesOption = None,
    queries: QueriesOption = None,
    since: SinceOption = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="compare and print, promote nothing")] = False,
    as_json: JsonOption = False,
    every: Annotated[
        str | None, typer.Option(help="again and again until SIGTERM or SIGINT, this far apart: 90s, 30m, 1h, 1d")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="with --every: one round, unless another process ran one in that time")
    ] = False,
    *,
    terms: Terms,
) -> None:
    """Learn a candidate from the decision log, compare it with the live router, promote it or say why not."""
    from coe.decision_log.default_database import database_url_of
    from coe.training.fit_inputs import RetrainRequest
    from coe.training.retrain_command import retrain_again_and_again, retrain_once, retrain_when_due

    request = RetrainRequest(
        config=config,
        routers=data_dir / "routers",
        outcomes=outcomes or data_dir / "outcomes",
        database_url=database_url_of(data_dir),
        queries=queries or query_folder(data_dir),
        since=since,
        terms=terms,
        is_dry_run=dry_run,
        cache=data_dir / "cache",
    )
    if every is None:
        retrain_once(request, as_json=as_json)
    elif once:
        retrain_when_due(request, every, as_json=as_json)
    else:
        retrain_again_and_again(request, every, [*sys.argv[1:], "--once"])


def router(
    version: Annotated[
        str,
        typer.Argument(help="a router version, an unambiguous beginning of one, or `live`; without, all are listed"),
    ] = "",
    promote: Annotated[bool, typer.Option("--promote", help="make it the live one; a trial ends")] = False,
    share: Annotated[
        float | None,
        typer.Option(min=0.0001, max=0.9, help="only on trial, for this share of the conversations, such as 0.05"),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=0.99, help="with --share: loss of mean reward that is tolerated")
    ] = CanaryTerms().margin,
    back: Annotated[
        bool, typer.Option("--back", help="end the trial if one runs, else return to the router that was live before")
    ] = False,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
) -> None:
    """List trained routers, or show one: parents, metrics, map. Or change which is live: running gateways follow
    within two seconds. A router on trial is withdrawn once it is shown to be worse."""
    registry, now = Registry(data_dir / "routers"), datetime.now(UTC)
    wanted = promote + back + (share is not None)
    if not wanted:
        show_routers(registry, version, config)
        return
    if wanted > 1:
        raise ConfigError("allowed: one of --promote, --share and --back")
    if back == bool(version):
        raise ConfigError("coe router: --back goes without a version, and the others need one")
    from coe.decision_log.admin_log import note_command

    if version:
        require_loadable(config, registry.folder(version))
    if share is not None:
        name = registry.folder(version).name
        trial = Trial(version=name, started_at=now.timestamp(), share=share, margin=margin)
        pointer = registry.try_out(trial)
        note_command(data_dir, "try", "router", pointer.version, trial.version)
        show_trial(trial, pointer.version)
        return
    before = registry.live()
    pointer = registry.rollback(now) if back else registry.promote(version, now)
    ended = "" if before is None else (before.trial if back and before.trial else before).version
    note_command(data_dir, "rollback" if back else "promote", "router", ended, pointer.version)
    echo(f"router {pointer.version} is live" + (f", {ended} no longer" if back else ""))


def show_routers(registry: Registry, version: str, config: Path) -> None:
    """Print all routers, the live one marked, or one of them; raise ConfigError if `live` is asked for and none is."""
    from coe.router.model_files.artifact import load_artifact
    from coe.training.summary import print_router, print_routers

    if not version:
        print_routers(registry)
        return
    live = registry.live() if version == "live" else None
    if version == "live" and live is None:
        raise ConfigError(f"{registry.root}: there is no live router yet; name a version")
    print_router(load_artifact(registry.folder(version if live is None else live.version)), config)


def require_loadable(config: Path, folder: Path) -> None:
    """Refuse a router that gateways could not load: each would refuse it, and report that only in its log. Raise
    ConfigError also if experts.yaml is wrong."""
    from coe.router.build import load_router
    from coe.router.config.composition import load_config

    loaded = load_config(config)
    try:
        load_router(loaded, folder)
    except RouterError as error:
        raise ConfigError(f"nothing was changed: gateways could not load that router with {config}: {error}") from error


def show_trial(trial: Trial, live: str) -> None:
    """Print what a trial does, and what ends it."""
    echo(f"router {trial.version} serves {trial.share:.2%} of the conversations, {live} the others")
    losses = f"lose {trial.margin:g} of mean reward, or to fail {trial.error_margin:g} more often"
    echo(f"it is withdrawn once shown to {losses}")
    echo(f"`coe router {trial.version[:8]} --promote` makes it live, `coe router --back` withdraws it")
