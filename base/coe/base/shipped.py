"""Paths of the labelled queries and graded probes for the categories that `coe init` writes."""

from __future__ import annotations

from pathlib import Path

DEFAULT_CONFIG = Path("experts.yaml")
EXAMPLE = Path("examples") / "smollm2"


def shipped_root() -> Path:
    """Return their root folder: beside the installed packages, or the checkout."""
    installed = Path(__file__).parents[1] / "shipped"
    return installed if installed.is_dir() else Path(__file__).parents[3]


def seed_folder() -> Path:
    """Return the folder of labelled queries, with one `<category>.jsonl` per category."""
    return shipped_root() / EXAMPLE / "seed"


def query_folder(data_dir: Path) -> Path:
    """Return the folder of labelled queries to learn from: the data folder's own if it exists, else the shipped one."""
    own = data_dir / "queries"
    return own if own.is_dir() else seed_folder()


def probes_folder() -> Path:
    """Return the folder of graded prompts, with one `<category>.jsonl` per category."""
    return shipped_root() / EXAMPLE / "probes"


def answers_file() -> Path:
    """Return the journal of the demo experts' answers to the probes (`coe eval collect`); only a checkout has it."""
    return shipped_root() / EXAMPLE / "answers.jsonl"
