"""`coe outcomes import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.options import with_options
from base.visible_text import echo
from training.datasets.import_formats import ImportOptions, import_formats

if TYPE_CHECKING:
    from training.datasets.import_formats import Imported


@with_options
def import_outcomes(
    files: Annotated[
        list[str], typer.Argument(help="files, folders of files, or MODEL=FILE to name the model of a file")
    ],
    format_name: Annotated[str, typer.Option("--format", help=f"format of the files: {', '.join(import_formats())}")],
    out: Annotated[Path, typer.Option(help="folder of the new outcome table")],
    source: Annotated[str | None, typer.Option(help="name of the table; default: that of the folder")] = None,
    *,
    options: ImportOptions,
) -> None:
    """Make an outcome table of another tool's files."""
    from base.errors import ConfigError
    from base.options import require_folder
    from base.progress import working
    from training.datasets.import_formats import find_files, load_importer, read_outcomes_of
    from training.datasets.outcome_files import PROMPTS_FILE
    from training.datasets.outcomes import write_outcomes

    importer = load_importer(format_name)
    require_folder(out)
    if (out / PROMPTS_FILE).exists():
        raise ConfigError(f"--out {out}: there is an outcome table already; name another folder, or remove it")
    if options.category is not None and options.category_field is not None:
        raise ConfigError("give either --category-field or --category")
    with working("reading files ..."):
        imported = read_outcomes_of(importer, find_files(importer, files), options, source or out.resolve().name)
        write_outcomes(imported.table, out)
    for line in (*summary(imported), f"wrote {out}"):
        echo(line)


def summary(imported: Imported) -> list[str]:
    """Lines for a person about what was read and what was not."""
    import numpy as np

    table = imported.table
    known = np.isfinite(table.scores)
    experts = list(enumerate(table.experts))
    n_incomplete = int((~known.all(axis=1)).sum())
    lines = [
        f"{known.sum()} scores by {table.metric}: {len(table.prompt_ids)} prompts in "
        f"{len(set(table.categories))} categories, {len(table.experts)} models",
        *(f"  {name}: mean {np.nanmean(table.scores[:, e]):.3f} of {known[:, e].sum()}" for e, name in experts),
        *imported.left_out.lines(),
    ]
    if n_incomplete:
        lines.append(f"{n_incomplete} prompts lack a score of some model; comparisons of all models leave these out")
    return lines
