"""`coe retrieval export`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from base.options import DatabaseOption, DataOption, JsonOption, SinceOption
from base.visible_text import echo
from decision_log.connections import opened_database
from retrieval.stores.export import Exported, export_all, export_store


def export(
    out: Annotated[Path, typer.Option(help="New folder for the collection; with --all, for a folder per store.")],
    store_id: Annotated[str | None, typer.Argument(metavar="STORE", help="Id of a vector store.")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Every store that has usable feedback.")] = False,
    since: SinceOption = 0.0,
    as_json: JsonOption = False,
    data_dir: DataOption = Path("data"),
    database_url: DatabaseOption = None,
) -> int:
    """Write vector stores with the feedback on their searches as collections for `retrieval train` and `pilots`."""
    from base.errors import ConfigError
    from base.progress import working

    if (store_id is not None) == is_all:
        raise ConfigError("name the one STORE to export, or --all for every store that has feedback")
    with working("reading stores and feedback ..."), opened_database(data_dir, database_url) as store:
        if store_id is None:
            done = export_all(store, out, since)
        else:
            done = {store_id: export_store(store, store_id, out, since)}
    if as_json:
        echo(json.dumps({"stores": {name: asdict(each) for name, each in done.items()}}))
    else:
        print_exported(done, out, is_all=is_all)
    return 0


def print_exported(done: dict[str, Exported], out: Path, *, is_all: bool) -> None:
    """A line for each store that was written, and for what was left out."""
    from base.terminal import Terminal

    console = Terminal(soft_wrap=True)
    if not any(exported.documents for exported in done.values()):
        console.print("no store has usable feedback on the documents of its searches; nothing was written")
    for store_id, exported in done.items():
        folder = out / store_id if is_all else out
        if exported.documents:
            queries = ", ".join(f"{count} {split}" for split, count in exported.queries.items())
            found = f"{exported.judgements} relevant documents"
            console.print(f"{folder}: {exported.documents} documents, queries: {queries}, {found}")
        if exported.left_out:
            reasons = "; ".join(f"{count} {reason}" for reason, count in exported.left_out.items())
            console.print(f"{store_id}: left out: {reasons}")
