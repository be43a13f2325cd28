"""The composition that ships with the project: experts.yaml, adapters, labelled seed queries, graded probes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

DEFAULT_CONFIG = Path("experts.yaml")
EXAMPLE = Path("examples") / "smollm2"


def shipped_root() -> Path:
    """The folder that holds the shipped experts.yaml: inside the installed package `coe`, or the checkout."""
    installed = Path(str(files("coe"))) / "shipped"
    return installed if installed.is_dir() else Path(__file__).parents[1]


def seed_folder() -> Path:
    """Labelled queries, one `<category>.jsonl` for each category of the shipped experts.yaml."""
    return shipped_root() / EXAMPLE / "seed"


def probes_folder() -> Path:
    """Graded prompts, one `<category>.jsonl` for each category of the shipped experts.yaml."""
    return shipped_root() / EXAMPLE / "probes"


def answers_file() -> Path:
    """Answers of the shipped experts to the shipped probes, as `coe eval collect --answers-to` wrote them."""
    return shipped_root() / EXAMPLE / "answers.jsonl"


def copy_composition(folder: Path) -> None:
    """Copies the shipped experts.yaml, with the adapters that it names, into a folder. Raises OSError."""
    import shutil

    adapters = EXAMPLE / "adapters"
    shutil.copytree(shipped_root() / adapters, folder / adapters, dirs_exist_ok=True)
    shutil.copy(shipped_root() / DEFAULT_CONFIG, folder / DEFAULT_CONFIG)
