"""The command `coe experts probe`: measures a new expert, as `coe eval collect` does; training puts it on the map."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from coe.base.errors import DataError, allowed_values
from coe.base.visible_text import echo
from coe.cli.options import GATEWAY_URL, ConfigOption, DataOption
from coe.cli.progress import console_progress
from coe.cli.terminal import Grid
from coe.eval.collect import Collection, collect
from coe.eval.collect_command import load_request, print_collection
from coe.eval.collect_request import CollectRequest, Show
from coe.eval.command_options import split_names
from coe.eval.probe_plan import bars_of, chances_of_luck, run_plan
from coe.eval.probe_set import Probe
from coe.fleet.router_registry import Registry
from coe.router.build import configured_router, evidence_of
from coe.router.config.composition import load_config
from coe.router.live_pointer import required_pointer
from coe.router.model_files.artifact import load_artifact
from coe.router.types import GENERAL, Float64Array
from coe.training.datasets.outcomes import read_outcome_folders, read_outcomes
from coe.training.expert_map import cell_sums, row_numbers
from coe.training.onboarding import MAX_LUCK, Onboarding, check_can_join, onboard
from coe.training.summary import result_console
from coe.training.types import OutcomeTable

LISTED_PROBES = (32, 128)


def experts_probe(
    name: Annotated[str, typer.Argument(help="expert of experts.yaml that is not on the map yet")],
    base_url: Annotated[
        str, typer.Option(help="API root where the expert is a model, such as the running gateway's")
    ] = GATEWAY_URL,
    probes: Annotated[
        int, typer.Option("--probes", min=LISTED_PROBES[0], max=LISTED_PROBES[1], help="how many to ask at most")
    ] = 64,
    probes_from: Annotated[
        Path | None,
        typer.Option("--probes-from", help="folder or JSON lines file of probes; default: the shipped probes"),
    ] = None,
    categories: Annotated[
        str | None, typer.Option("--categories", help="only these, separated by commas; default: all")
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="make the new router live at once")] = False,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
) -> None:
    """Score a new expert on a few graded probes and put it on the map; nothing else is refitted."""
    registry, loaded = Registry(data_dir / "routers"), load_config(config)
    folder = registry.folder(required_pointer(registry.root).version)
    artifact = load_artifact(folder)
    check_can_join(loaded, artifact, name)
    router, names = configured_router(loaded, artifact), artifact.manifest.categories
    out = data_dir / "outcomes" / f"probe-{name}"
    request = load_request(probes_from, config, (name,), base_url, out)
    wanted = split_names(categories, "--categories") or ()
    rows = probes_by_row(request.probes, names, wanted)
    kept = [artifact.manifest.experts.index(expert) for expert in router.experts]
    bars = bars_of(loaded, router, evidence_of(artifact).columns(kept), name, [len(row) for row in rows])
    asyncio.run(wait_until_listed(request, name))
    with console_progress() as progress:
        asking = Rounds(request, names, rows, progress)
        luck = chances_of_luck(bars, probes, *run_plan(bars, probes, asking))
    print_collection(asking.whole(), out)
    now = datetime.now(UTC)
    others = graded_others(data_dir / "outcomes", artifact.manifest.experts)
    found = onboard(loaded, folder, name, asking.table(), others, now=now, luck=luck)
    print_onboarding(found)
    if promote:
        registry.promote(found.artifact.manifest.version, now)
        echo(f"router {found.artifact.manifest.version} is live")
    else:
        short = found.artifact.manifest.version[:8]
        echo(f"nothing serves it yet: `coe router {short} --promote`")


async def wait_until_listed(request: CollectRequest, expert: str) -> None:
    """Wait until the gateway serves an expert that `coe config apply` has just added."""
    async with request.client() as client:
        await client.wait_for_model(expert)


def probes_by_row(
    probes: Sequence[Probe], categories: Sequence[str], wanted: Sequence[str]
) -> tuple[tuple[Probe, ...], ...]:
    """Group probes by the k rows of the map (`general` last) in a random order, so that the first ones are not easier.

    Args:
        wanted: only these categories; all if it is empty.

    Raises:
        DataError: there is no probe of a wanted category.
    """
    names = {probe.category for probe in probes}
    for name in wanted:
        if name not in names:
            raise DataError(f"--categories: there is no probe of '{name}'{allowed_values(name, sorted(names))}")
    rows: dict[str, list[Probe]] = {name: [] for name in (*categories, GENERAL)}
    shuffled = list(probes)
    random.Random(0).shuffle(shuffled)
    for probe in shuffled:
        if not wanted or probe.category in wanted:
            rows[probe.category if probe.category in rows else GENERAL].append(probe)
    return tuple(map(tuple, rows.values()))


@dataclass(frozen=True)
class Rounds:
    """Rounds of calls to one expert; `request` holds everything but the probes of a round."""

    request: CollectRequest
    categories: tuple[str, ...]
    probes: tuple[tuple[Probe, ...], ...]
    show: Show
    collected: list[Collection] = field(default_factory=list)

    def __call__(self, asked: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Ask until so many probes of each row (1, k) are asked in all; return sums and counts of scores, (1, k) each.

        Raises:
            RouterError: no expert can be asked there, or none answered, as in `collect`.
        """
        chosen = tuple(p for row, n in zip(self.probes, asked[0], strict=True) for p in row[: int(n)])
        self.collected.append(asyncio.run(collect(replace(self.request, probes=chosen), show=self.show)))
        table = self.table()
        sums, _, counts = cell_sums(table.scores, row_numbers(table, self.categories), len(self.categories))
        return sums.T, counts.T

    def whole(self) -> Collection:
        """Return the last round, which has the answers of all rounds, with the number of new answers of all."""
        return replace(self.collected[-1], n_new=sum(each.n_new for each in self.collected))

    def table(self) -> OutcomeTable:
        """Load the table of all that was graded so far."""
        return read_outcomes(self.request.out, experts=self.request.experts, keep_partial=True)


def graded_others(root: Path, experts: tuple[str, ...]) -> OutcomeTable | None:
    """Return the scores of the experts on the map if a table still has them, else None."""
    try:
        return read_outcome_folders(root, experts)
    except DataError:
        return None


def print_onboarding(found: Onboarding) -> None:
    """Print the measured quality with standard errors, the categories that the expert takes, and how sure that is."""
    console = result_console()
    console.print(
        f"{found.expert}: mean score {found.mean:.3f} \u00b1 {found.mean_stderr:.3f} on {found.n_probes} probes; "
        f"router {found.artifact.manifest.version}, parent {found.parent}",
    )
    columns = ("category", "probes", "quality", "serves now", "difference", "chance better", "sure", "luck", "map")
    title = f"{found.expert} against the serving expert (\u00b1 is one standard error)"
    table = Grid(*columns, title=title, title_justify="left")
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
        "luck: how often an expert that equals the serving ones looks as good after these probes; "
        f"a category is given only up to {MAX_LUCK:.0%}, so one in {1 / MAX_LUCK:.0f} such experts gets any; "
        "a cheaper expert takes it wherever it is as good as measured",
    )
    taken = ", ".join(found.taken) or "no category"
    console.print(f"with it on the map, {found.expert} takes {taken}")
