"""Where the labelled queries and graded probes of the categories are that `coe init` writes."""

from __future__ import annotations

from pathlib import Path

DEFAULT_CONFIG = Path("experts.yaml")
EXAMPLE = Path("examples") / "smollm2"


def shipped_root() -> Path:
    """The folder that holds them: beside the installed packages, or the checkout."""
    installed = Path(__file__).parents[1] / "shipped"
    return installed if installed.is_dir() else Path(__file__).parents[3]


def seed_folder() -> Path:
    """Labelled queries, one `<category>.jsonl` for each category."""
    return shipped_root() / EXAMPLE / "seed"


def query_folder(data_dir: Path) -> Path:
    """Labelled queries to learn from: those in the data folder, where there are any, or else the shipped ones."""
    own = data_dir / "queries"
    return own if own.is_dir() else seed_folder()


def probes_folder() -> Path:
    """Graded prompts, one `<category>.jsonl` for each category."""
    return shipped_root() / EXAMPLE / "probes"


def answers_file() -> Path:
    """Answers of the demo's experts to these probes, from a journal of `coe eval collect`; only a checkout has them."""
    return shipped_root() / EXAMPLE / "answers.jsonl"
