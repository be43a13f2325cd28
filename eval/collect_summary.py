"""What `coe eval collect` prints when it is done."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval.collect import Collection
from router.terminal import Grid, Terminal


def print_collection(collection: Collection, out: Path) -> None:
    """One row an expert (what failed is among the graded), then every kind of failure and error with its count."""
    outcomes = collection.table
    table = Grid("expert", "mean score", "graded", "failed", "mean latency", title=None)
    for e, expert in enumerate(outcomes.experts):
        known = np.isfinite(outcomes.scores[:, e])
        failed = sum(count for (name, _), count in collection.failures.items() if name == expert)
        mean = f"{100 * outcomes.scores[known, e].mean():.1f}%" if known.any() else ""
        latency = f"{outcomes.latency_ms[known, e].mean():.0f} ms" if known.any() else ""
        table.add_row(expert, mean, f"{known.sum()} of {len(known)}", str(failed), latency)
    console = Terminal(soft_wrap=True)
    console.print(table)
    for (expert, reason), count in sorted(collection.failures.items()):
        console.print(f"{expert}: {reason}: {count} times, each a 0; --retry-failed asks again", highlight=False)
    for (expert, reason), count in sorted(collection.errors.items()):
        console.print(f"{expert}: {reason}: {count} times, not measured; run again to ask", highlight=False)
    for sentence in collection.stopped:
        console.print(sentence, highlight=False)
    console.print(f"wrote {out} ({collection.n_reused} answers were there already)", highlight=False)
