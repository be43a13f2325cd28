"""The command `coe eval collect`: validates its options and prints the result."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from coe.base.errors import ConfigError, allowed_values
from coe.base.journal import Journal
from coe.cli.options import api_key, require_folder, with_options
from coe.cli.progress import console_progress
from coe.cli.terminal import Grid, Terminal
from coe.eval.answers import Answer
from coe.eval.collect import Collection
from coe.eval.collect import collect as run_collect
from coe.eval.collect_request import CollectOptions, CollectRequest
from coe.eval.command_options import ExpertsOption, split_names
from coe.eval.probe_set import load_probe_file, load_probes
from coe.eval.ray_engine import EngineOption, WorkEngine, cores_of
from coe.fleet.expert_fingerprint import expert_fingerprint
from coe.router.config.composition import load_config
from coe.router.section import PluginConfig
from coe.training.datasets.outcomes import facts_of_config
from coe.training.types import ModelFacts


@with_options
def collect(
    out: Annotated[Path, typer.Option(help="folder of the outcome table; what is there already is not asked again")],
    base_url: Annotated[
        str, typer.Option(help="API root where every expert is a model, e.g. http://127.0.0.1:8000/v1")
    ],
    experts: ExpertsOption = None,
    probes: Annotated[
        Path | None, typer.Option(help="folder or JSON lines file of probes; default: the shipped probes")
    ] = None,
    experts_file: Annotated[Path | None, typer.Option(help="experts.yaml with sizes and prices")] = None,
    answers_from: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="journal.jsonl of another machine; what unchanged experts answered there is not asked again",
        ),
    ] = None,
    engine: EngineOption = WorkEngine.LOCAL,
    *,
    options: CollectOptions,
) -> None:
    """Run prompts through the experts, grade the answers and write an outcome table."""
    require_folder(out)
    request = load_request(probes, experts_file, split_names(experts, "--experts"), base_url, out)
    given = tuple(Journal(answers_from, Answer).read()) if answers_from else ()
    with console_progress() as progress, cores_of(engine) as cores:
        wanted = replace(request, given=given, options=options, cores=cores)
        collection = asyncio.run(run_collect(wanted, show=progress))
    print_collection(collection, out)


def load_request(
    probes: Path | None, experts_file: Path | None, experts: Sequence[str] | None, base_url: str, out: Path
) -> CollectRequest:
    """Load probes (the packaged ones by default) and experts.yaml, whose experts stay in the table.

    Raises:
        ConfigError: the URL is malformed, no expert is named, one is named twice or is not in the file.
        DataError: a file of probes cannot be read, as in `load_probes`.
    """
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"--base-url: '{base_url}' is not a URL; expected http://HOST:PORT/v1")
    facts, fingerprints = dict[str, ModelFacts](), dict[str, str]()
    compared_by: Mapping[str, PluginConfig] = {}
    if experts_file:
        config = load_config(experts_file)
        folder = experts_file.resolve().parent
        facts = dict(facts_of_config(config))
        fingerprints = {name: expert_fingerprint(entry, folder) for name, entry in config.experts.items()}
        compared_by = config.answers
    names = tuple(experts or facts)
    if not names:
        raise ConfigError("name the experts: --experts a,b,c, or --experts-file experts.yaml for all of its experts")
    for name in names:
        if experts_file and name not in facts:
            raise ConfigError(f"--experts: unknown expert '{name}'{allowed_values(name, facts)}")
        if names.count(name) > 1:
            raise ConfigError(f"--experts: '{name}' is named {names.count(name)} times")
    loaded = load_probe_file(probes) if probes is not None and probes.is_file() else load_probes(probes)
    return CollectRequest(
        probes=loaded,
        experts=names,
        base_url=base_url,
        out=out,
        facts=facts,
        fingerprints=fingerprints,
        compared_by=compared_by,
        kept=frozenset(facts) if experts_file else None,
        api_key=api_key(),
    )


def print_collection(collection: Collection, out: Path) -> None:
    """Print one row per expert (failed answers are graded 0), then every kind of failure and error with its count."""
    outcomes = collection.table
    table = Grid("expert", "mean score", "graded", "failed", "mean latency", title=None)
    for e, expert in enumerate(outcomes.experts):
        known = np.isfinite(outcomes.scores[:, e])
        failed = sum(count for (name, _), count in collection.failures.items() if name == expert)
        mean = f"{100 * outcomes.scores[known, e].mean():.1f}%" if known.any() else ""
        latency = (
            f"{np.nanmean(outcomes.latency_ms[:, e]):.0f} ms" if np.isfinite(outcomes.latency_ms[:, e]).any() else ""
        )
        table.add_row(expert, mean, f"{known.sum()} of {len(known)}", str(failed), latency)
    console = Terminal(soft_wrap=True)
    console.print(table)
    for (expert, reason), count in sorted(collection.failures.items()):
        console.print(f"{expert}: {reason}: {count} times, each a 0; --retry-failed asks again")
    for (expert, reason), count in sorted(collection.errors.items()):
        console.print(f"{expert}: {reason}: {count} times, not measured; run again to ask")
    for sentence in collection.stopped:
        console.print(sentence)
    console.print(f"wrote {out} ({collection.n_reused} answers were known already)")
