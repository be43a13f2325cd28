"""The page of the gateway's measurements, and the bars that they must reach."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway_load import LARGE, LOADS, MANY, ONE, PACED, STREAM, Load
from benchmarks.gateway_subjects import LITELLM, LITELLM_VERSION, NAMED, NO_GATEWAY, REFERENCE, SHIPPED, STATIC


@dataclass(frozen=True)
class Sample:
    """One measurement: latencies in ms, requests per second, CPU microseconds per request; of streams also the time to
    the first frame and the 99th percentile of the gaps between frames in ms, frames that came and that should have."""

    p50_ms: float
    p99_ms: float
    per_s: float
    cpu_us: float
    first_ms: float
    gap_p99_ms: float
    frames: int
    expected_frames: int


@dataclass(frozen=True)
class Measured:
    """One gateway in one round. Seconds from the start of its process to ready and to its first answer; resident MiB
    after all loads; the samples by the load's name."""

    ready_s: float
    answered_s: float
    rss_mib: float
    samples: Mapping[str, Sample]


Round = Mapping[str, Measured]
"""Measurements of each gateway, by its name."""


@dataclass(frozen=True)
class Bar:
    """Bar for a figure that each round gives."""

    text: str
    figure: Callable[[Round], float]
    limit: float
    is_least: bool = False
    digits: int = 2

    def values(self, rounds: Sequence[Round]) -> list[float]:
        return [self.figure(entry) for entry in rounds]

    def holds(self, rounds: Sequence[Round]) -> bool:
        found = statistics.median(self.values(rounds))
        return found >= self.limit if self.is_least else found <= self.limit

    def row(self, rounds: Sequence[Round]) -> str:
        limit = f"{'at least' if self.is_least else 'at most'} {self.limit:,g}"
        found, verdict = middle(self.values(rounds), self.digits), "yes" if self.holds(rounds) else "**no**"
        return f"| {self.text} | {limit} | {found} | {verdict} |"


def sample(entry: Round, name: str, load: Load) -> Sample:
    return entry[name].samples[load.name]


def speed(name: str, of: str) -> Callable[[Round], float]:
    """Requests a second at 16 at once, as a multiple of another's."""
    return lambda entry: sample(entry, name, MANY).per_s / sample(entry, of, MANY).per_s


def added_ms(name: str, load: Load) -> Callable[[Round], float]:
    return lambda entry: sample(entry, name, load).p50_ms - sample(entry, NO_GATEWAY, load).p50_ms


def first_frame_ms(name: str) -> Callable[[Round], float]:
    return lambda entry: sample(entry, name, STREAM).first_ms - sample(entry, REFERENCE, STREAM).first_ms


def tail(name: str) -> Callable[[Round], float]:
    """p99 at 16 at once without the encoder's time, as a multiple of pass-through's. That time is what routing adds to
    the median of a request alone."""

    def figure(entry: Round) -> float:
        encoder_ms = sample(entry, name, ONE).p50_ms - sample(entry, NAMED, ONE).p50_ms
        return (sample(entry, name, MANY).p99_ms - encoder_ms) / sample(entry, REFERENCE, MANY).p99_ms

    return figure


def lost_frames(name: str) -> Callable[[Round], float]:
    return lambda entry: sample(entry, name, PACED).expected_frames - sample(entry, name, PACED).frames


def late_gap(name: str) -> Callable[[Round], float]:
    return lambda entry: sample(entry, name, PACED).gap_p99_ms - sample(entry, REFERENCE, PACED).gap_p99_ms


def bars(has_litellm: bool) -> list[Bar]:
    short = {NAMED: "named", STATIC: "static", SHIPPED: "as shipped"}
    found = [
        Bar("requests/s at 16 at once, named / pass-through", speed(NAMED, REFERENCE), 0.8, is_least=True),
        Bar("requests/s at 16 at once, static / pass-through", speed(STATIC, REFERENCE), 0.5, is_least=True),
    ]
    if has_litellm:
        found.append(Bar("requests/s at 16 at once, as shipped / LiteLLM", speed(SHIPPED, LITELLM), 4, is_least=True))
    found += [
        Bar("added to the median of one request, as shipped, ms", added_ms(SHIPPED, ONE), 3),
        *(Bar(f"p99 at 16 at once less encoder / pass-through, {n}", tail(k), 1.5) for k, n in short.items()),
        Bar("resident memory, static, MiB", lambda entry: entry[STATIC].rss_mib, 160, digits=0),
        Bar("resident memory, as shipped, MiB", lambda entry: entry[SHIPPED].rss_mib, 350, digits=0),
        Bar("first frame later than with pass-through, named, ms", first_frame_ms(NAMED), 1),
        Bar("first frame later than with pass-through, static, ms", first_frame_ms(STATIC), 1),
        *(Bar(f"frames lost of 16 paced streams, {n}", lost_frames(k), 0, digits=0) for k, n in short.items()),
        *(Bar(f"p99 of their gaps longer than pass-through's, {n}, ms", late_gap(k), 10) for k, n in short.items()),
        *(Bar(f"added to the median of 131,000 characters, {n}, ms", added_ms(k, LARGE), 3) for k, n in short.items()),
        Bar("start of the process to ready, static, s", lambda entry: entry[STATIC].ready_s, 2, digits=1),
        Bar("start of the process to ready, as shipped, s", lambda entry: entry[SHIPPED].ready_s, 4, digits=1),
    ]
    return found


def bars_table(rounds: Sequence[Round]) -> list[str]:
    rows = [bar.row(rounds) for bar in bars(LITELLM in rounds[0])]
    return ["| | bar | measured | holds |", "|---|---|---|---|", *rows]


def load_table(rounds: Sequence[Round], load: Load) -> list[str]:
    has_frames = load.frames > 0
    titles = ["p50, ms", "p99, ms", "requests/s", "of pass-through", "CPU us/request"]
    titles += ["first frame, ms", "p99 of gaps, ms", "frames lost"] if has_frames else []
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name in rounds[0]:
        own = [sample(entry, name, load) for entry in rounds]
        ratios = [sample(entry, name, load).per_s / sample(entry, REFERENCE, load).per_s for entry in rounds]
        cells = [
            middle([each.p50_ms for each in own]),
            middle([each.p99_ms for each in own], 1),
            middle([each.per_s for each in own], 0),
            middle(ratios),
            middle([each.cpu_us for each in own], 0),
        ]
        if has_frames:
            lost = sum(each.expected_frames - each.frames for each in own)
            cells += [middle([each.first_ms for each in own]), middle([each.gap_p99_ms for each in own], 1)]
            cells.append(f"{lost:,} of {sum(each.expected_frames for each in own):,}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def start_table(rounds: Sequence[Round]) -> list[str]:
    lines = ["| | ready, s | first answer, s | resident MiB after all loads |", "|---|---|---|---|"]
    for name in rounds[0]:
        own = [entry[name] for entry in rounds]
        ready, answered = [each.ready_s for each in own], [each.answered_s for each in own]
        cells = (middle(ready, 1), middle(answered, 1), middle([each.rss_mib for each in own], 0))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def middle(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the least and the greatest of the rounds that have the figure."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "none"
    low, high = min(known), max(known)
    return f"{statistics.median(known):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def page(rounds: Sequence[Round], seconds: float, busy: tuple[float, float], texts: str) -> str:
    lines = [
        "# What a gateway adds",
        "",
        f"`python -m benchmarks.gateway --rounds {len(rounds)} --seconds {seconds:g}` on {platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} cores ({cpu_name()}), Python {platform.python_version()}: one core for the "
        "gateway with all its processes, and one for the mock engine with the load generator. Requests are "
        f"{texts}; routing and the decision log are on. LiteLLM is {LITELLM_VERSION}. Cells are medians of "
        "the rounds, with the least and the greatest; ratios and differences are taken within a round.",
        "",
        f"Load of the machine (runnable processes, one minute): {busy[0]:.1f} before, {busy[1]:.1f} after. "
        "On a machine that others use, compare rows and ratios, not absolute figures.",
        "",
        "## Bars",
        "",
        "What a request is *added* is counted against the engine without any gateway.",
        "",
        *bars_table(rounds),
        "",
        "## Start and memory",
        "",
        "Ready is the first answered `/readyz`, for which only coe is asked: compare the first answers to a chat. A "
        "start has one core, too, and finds Python's bytecode, as an installed program does. Files that the system "
        "caches, such as 62 MiB of the token table, are not resident memory of a process.",
        "",
        *start_table(rounds),
    ]
    for load in LOADS:
        lines += ["", f"## {load.name[0].upper()}{load.name[1:]}", "", *load_table(rounds, load)]
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return found[0].partition(":")[2].strip() if found else "unknown"
