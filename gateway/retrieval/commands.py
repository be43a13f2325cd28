"""`coe retrieval export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.decision_log.opening import DatabaseUrl, DataDir, opened_store
from gateway.retrieval.export import export_store


def export(
    store_id: Annotated[str, typer.Argument(metavar="STORE", help="Id of a vector store.")],
    out: Annotated[Path, typer.Option(help="New folder for the collection.")],
    data_dir: DataDir = Path("data"),
    database_url: DatabaseUrl = None,
) -> int:
    """Write a vector store with the feedback on its searches as a collection for `retrieval train` and `pilots`."""
    from rich.console import Console

    with opened_store(data_dir, database_url) as store:
        done = export_store(store, store_id, out)
    console = Console(highlight=False)
    queries = ", ".join(f"{count} {split}" for split, count in done.queries.items())
    console.print(f"{out}: {done.documents} documents, queries: {queries}, {done.judgements} relevant documents")
    if done.without_text or done.gone:
        console.print(
            f"left out: {done.without_text} searches without text (log.privacy is not text), {done.gone} judgements of "
            "documents that are gone"
        )
    return 0
