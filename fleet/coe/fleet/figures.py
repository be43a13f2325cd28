"""Figures with which engines are planned: published ones, and in their place those of `coe doctor gpu` on this host."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from coe.base.errors import DataError
from coe.base.whole_files import write_whole


class Figures(BaseModel, frozen=True, extra="forbid"):
    """GiB on each GPU, and times. The defaults are published ones; none is ours."""

    cuda_gib: float = Field(default=0.16, description="beside what PyTorch allocates: as in pull request 10511 of vLLM")
    graphs_gib: float = Field(default=1.0, description="at most, for captured CUDA graphs, which count since 0.21")
    sleeper_gib: float = Field(default=1.5, description="that a sleeping engine keeps: 1 to 2 GiB were published")
    activations: float = Field(default=1.0, description="of a step, for each GiB that is counted for them")
    pinned: float = Field(default=1.0, description="host memory at level 1, for each GiB that is counted for it")
    times: dict[str, tuple[tuple[float, float], ...]] = Field(
        default={}, description="field of TransitionTimes -> billions of parameters and seconds, the smallest first"
    )


USUAL = Figures()


def figures_file(data_dir: Path) -> Path:
    return data_dir / "engines" / "measured.json"


def read_figures(data_dir: Path) -> Figures:
    """Those of a data folder; published ones where none were measured. Raises DataError."""
    file = figures_file(data_dir)
    try:
        return Figures.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return USUAL
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: delete it, or measure again by `coe doctor gpu`") from error


def write_figures(data_dir: Path, figures: Figures) -> None:
    """Only what differs from the published figures counts as measured."""
    figures_file(data_dir).parent.mkdir(parents=True, exist_ok=True)
    write_whole(figures_file(data_dir), figures.model_dump_json(exclude_defaults=True, indent=1))
