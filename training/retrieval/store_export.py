"""What people found in the vector stores, asked of `coe retrieval export`, a command of a package that this one may not
import."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from router.cli import coe_command
from router.errors import DataError

REASONS = {
    "without_text": "searches whose text was not kept: log.privacy is not text",
    "gone": "judgements of documents that are not in their store any more",
    "without_relevant": "queries for which no document was useful",
}
"""Count of the export -> what it counts, in words."""


def export_stores(database_url: str, since: float, folder: Path) -> Mapping[str, int]:
    """Writes each store that has usable feedback into a folder of its id; returns what was left out, by reason.

    Args:
        since: Unix seconds; older searches are not read.

    Raises:
        DataError: the export failed; the message says why.
    """
    words = coe_command("retrieval", "export", "--all", "--json", "--out", str(folder))
    if since > 0:
        words += ["--since", datetime.fromtimestamp(since, UTC).isoformat()]
    # The address may hold a password, which other users of this machine could read on a command line.
    environment = {**os.environ, "DATABASE_URL": database_url}
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise DataError(f"`coe retrieval export` ended with status {done.returncode}: {last_line(done.stderr)}")
    left_out: Counter[str] = Counter()
    for counts in json.loads(done.stdout)["stores"].values():
        left_out.update({words: counts[name] for name, words in REASONS.items() if counts[name]})
    return left_out


def last_line(text: str) -> str:
    """What a program complained of, without its name."""
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("coe: ") if lines else "it said nothing"
