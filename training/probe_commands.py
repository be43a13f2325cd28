"""`coe experts probe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.options import ConfigOption, DataOption
from base.visible_text import echo

if TYPE_CHECKING:
    from training.onboarding import Onboarding
    from training.types import OutcomeTable

LISTED_PROBES = (32, 128)


def experts_probe(
    name: Annotated[str, typer.Argument(help="expert of experts.yaml that is not on the map yet")],
    base_url: Annotated[
        str, typer.Option(help="API root where the expert is a model, such as the running gateway's")
    ] = "http://127.0.0.1:8000/v1",
    probes: Annotated[
        int, typer.Option("--probes", min=LISTED_PROBES[0], max=LISTED_PROBES[1], help="how many to ask at most")
    ] = 64,
    probes_from: Annotated[
        Path | None, typer.Option("--probes-from", help="folder or JSON lines file of probes; default: our own")
    ] = None,
    categories: Annotated[
        str | None, typer.Option("--categories", help="only these, with commas between them; default: all")
    ] = None,
    outcomes: Annotated[
        Path | None, typer.Option(help="outcome table of the other experts; default: all in <data>/outcomes")
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="make the new router live at once")] = False,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
) -> None:
    """Score a new expert on a few graded probes and put it on the map; nothing else is refitted."""
    from datetime import UTC, datetime

    from base.errors import ArtifactError
    from router.artifact import load_artifact
    from router.build import configured_router, evidence_of
    from router.config import load_config
    from router.registry import Registry
    from training.onboarding import check_can_join, onboard
    from training.probe_plan import chances_of_luck, run_plan
    from training.probe_run import Asking, bars_of, probes_by_row

    registry, loaded = Registry(data_dir / "routers"), load_config(config)
    live = registry.live()
    if live is None:
        raise ArtifactError(f"{registry.root}: there is no live router yet; `coe up` or `coe train` makes the first")
    folder = registry.folder(live.version)
    artifact = load_artifact(folder)
    check_can_join(loaded, artifact, name)
    router, names = configured_router(loaded, artifact), artifact.manifest.categories
    probes_of = probes_by_row(probes_from, names, [word.strip() for word in (categories or "").split(",") if word])
    kept = [artifact.manifest.experts.index(expert) for expert in router.experts]
    bars = bars_of(loaded, router, evidence_of(artifact).columns(kept), name, probes_of)
    asking = Asking(name, base_url, config, data_dir / "outcomes" / f"probe-{name}", names, probes_of)
    luck = chances_of_luck(bars, probes, *run_plan(bars, probes, asking))
    echo(asking.said[-1].rstrip())
    now = datetime.now(UTC)
    others = graded_others(outcomes or data_dir / "outcomes", artifact.manifest.experts)
    found = onboard(loaded, folder, name, asking.table(), others, now=now, luck=luck)
    print_onboarding(found)
    if promote:
        registry.promote(found.artifact.manifest.version, now)
        echo(f"router {found.artifact.manifest.version} is live")
    else:
        short = found.artifact.manifest.version[:8]
        echo(f"nothing serves it yet: `coe router try {short}` tries it out, `coe router promote {short}`")


def graded_others(root: Path, experts: tuple[str, ...]) -> OutcomeTable | None:
    """Scores of the experts on the map, where a table still has them; None otherwise."""
    from base.errors import DataError
    from training.datasets.outcome_folders import read_outcome_folders

    try:
        return read_outcome_folders(root, experts)
    except DataError:
        return None


def print_onboarding(found: Onboarding) -> None:
    """Standard errors, which categories it takes, and how sure that is."""
    from base.terminal import Grid, Terminal
    from training.probe_plan import MOST_LUCKY
    from training.summary import result_console

    console: Terminal = result_console()
    console.print(
        f"{found.expert}: mean score {found.mean:.3f} \u00b1 {found.mean_stderr:.3f} on {found.n_probes} probes; "
        f"router {found.artifact.manifest.version}, parent {found.parent}",
    )
    table = Grid(title=f"{found.expert} against who serves now (\u00b1 is one standard error)", title_justify="left")
    for column in ("category", "probes", "quality", "serves now", "difference", "chance better", "sure", "luck", "map"):
        table.add_column(column)
    for row in found.outlook:
        more = f"about {row.probes_needed} probes" if row.probes_needed else "not by probes"
        table.add_row(
            row.category,
            str(row.count),
            f"{row.quality:.3f} \u00b1 {row.quality_stderr:.3f}",
            row.serves,
            f"{row.difference:+.3f} \u00b1 {row.stderr:.3f}",
            f"{row.chance_better:.0%}",
            "yes" if row.is_decided else more,
            f"{row.luck:.1%}" if row.count else "",
            "takes it" if row.takes else "",
        )
    console.print(table)
    console.print(
        "luck: how often an expert as good as who serves now, and better nowhere, looks as good after these probes; "
        f"a category is given only up to {MOST_LUCKY:.0%}, so one in {1 / MOST_LUCKY:.0f} such experts gets any",
    )
    taken = ", ".join(found.taken) or "no category"
    console.print(f"with it on the map, {found.expert} takes {taken}")
