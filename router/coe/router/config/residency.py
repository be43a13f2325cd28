"""The part of experts.yaml about engines that share the memory of GPUs in turns."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

from pydantic import Field

from coe.base.errors import allowed_values
from coe.router.section import Name, Section


class ResidencyConfig(Section):
    """Choice of the vLLM engines that are awake; docs/residency.md."""

    memory_gb: float = Field(gt=0, description="GPU memory for engines, of each GPU, in GiB")
    host_memory_gb: float = Field(default=0.0, ge=0, description="host memory for weights at sleep level 1, in GiB")
    pins: tuple[Name, ...] = Field(default=(), description="experts that are woken at the start and stay awake")
    max_waiting: ClassVar = 32  # requests of a process that may wait for engines to wake
    wait_s: ClassVar = 120.0  # longest wait for an engine that was asked by name


def residency_problems(residency: ResidencyConfig, engines: Collection[str]) -> Iterator[str]:
    """Yield pins that are not among `engines`, the experts on vLLM."""
    if not engines:
        yield "residency: no expert is on vLLM; required: one of engine 'vllm' or more"
    for name in residency.pins:
        if name not in engines:
            yield f"residency.pins: '{name}' is not an expert on vLLM{allowed_values(name, engines)}"
