"""States of an engine between awake and stopped, and the cost of a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal


class Residency(StrEnum):
    """The place of an expert's weights."""

    AWAKE = "awake"
    SLEEP_1 = "sleep_1"  # weights in host memory
    SLEEP_2 = "sleep_2"  # weights dropped, the process kept
    STOPPED = "stopped"  # no process
    STARTING = "starting"  # its supervisor starts it again, awake: it takes its memory and answers nobody yet
    ADAPTER = "adapter"  # of an expert, not of an engine: an adapter that its base's engine, awake, has loaded


SleepLevel = Literal[1, 2]

SLEEPS = (Residency.SLEEP_1, Residency.SLEEP_2)
ABSENT = (Residency.STOPPED, Residency.STARTING)

TIME_OF = {
    (Residency.SLEEP_1, True): "wake_1_s",
    (Residency.SLEEP_2, True): "wake_2_s",
    (Residency.STOPPED, True): "cold_start_s",
    (Residency.SLEEP_1, False): "sleep_1_s",
    (Residency.SLEEP_2, False): "sleep_2_s",
}
"""Field of `TransitionTimes` by the state beside awake, and whether the engine wakes."""


@dataclass(frozen=True, slots=True)
class TransitionTimes:
    """Seconds that each change of state takes."""

    sleep_1_s: float
    wake_1_s: float
    sleep_2_s: float
    wake_2_s: float
    cold_start_s: float

    def wake_s(self, state: Residency) -> float:
        """From a state to awake."""
        return float(getattr(self, TIME_OF.get((state, True), ""), 0.0))

    def sleep_s(self, state: Residency) -> float:
        """From awake to a state; a process that is stopped ends within a second (ours)."""
        ends_s = 1.0 if state is Residency.STOPPED else 0.0
        return float(getattr(self, TIME_OF.get((state, False), ""), ends_s))

    def cycle_s(self, state: Residency) -> float:
        """To a state and back."""
        return self.sleep_s(state) + self.wake_s(state)


Points = Sequence[tuple[float, float]]

PUBLISHED: dict[str, Points] = {
    "sleep_1_s": ((0.6, 0.22), (8.0, 10.57)),
    "wake_1_s": ((0.6, 0.26), (4.0, 0.82), (8.0, 2.19), (30.0, 2.87), (235.0, 5.4)),
    "sleep_2_s": ((0.6, 0.12), (8.0, 0.31)),
    "wake_2_s": ((0.6, 0.85), (4.0, 2.58), (8.0, 6.53)),
    "cold_start_s": ((0.6, 48.0), (30.0, 48.0), (235.0, 98.0)),
}
"""Billions of parameters and seconds that others published for vLLM on A100s: its blog on sleep mode (wake, level 2 and
cold start), pull request 48337 (Qwen3-0.6B and 8B with LoRA: sleep, and wake of 8B). None is ours."""


def published_times(params_b: float, measured: Mapping[str, Points] = MappingProxyType({})) -> TransitionTimes:
    """The published times of a model by billions of parameters, and as much faster or slower as those measured here."""
    import numpy as np

    def seconds(name: str) -> float:
        if not (points := measured.get(name)):
            return published_s(name, params_b)
        sizes = [size for size, _ in points]
        ratios = np.log([each / published_s(name, size) for size, each in points])
        return published_s(name, params_b) * float(np.exp(np.interp(np.log(params_b), np.log(sizes), ratios)))

    return TransitionTimes(**{name: seconds(name) for name in PUBLISHED})


def published_s(name: str, params_b: float) -> float:
    """Interpolated by billions of parameters (both on a log scale). Above the largest model a time grows in proportion
    to the size, below the smallest it stays."""
    import numpy as np

    sizes, times = np.transpose(PUBLISHED[name])
    within = np.interp(np.log(params_b), np.log(sizes), np.log(times))
    return float(np.exp(within) * max(params_b / sizes[-1], 1.0))
