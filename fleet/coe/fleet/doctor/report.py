"""The run of `coe doctor gpu`: its models and composition, its page, and the figures that the planner takes from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from coe.base.whole_files import write_whole
from coe.cli.progress import Progress
from coe.fleet.doctor.checks import CONTEXT, Checks, Finding, available_gib
from coe.fleet.doctor.models import SHAPES, write_adapter, write_model
from coe.fleet.figures import USUAL, Figures, write_figures
from coe.fleet.gpus import visible_gpus
from coe.fleet.hosts.engine_plans import free_port
from coe.fleet.hosts.vllm_gpus import USABLE_SHARE, placed_processes
from coe.fleet.hosts.vllm_host import hosted_vllm
from coe.fleet.vllm.command import DEV_ENV, SLEEP_FLAG
from coe.router.config.composition import VllmConfig, parse_config

LARGE_GPU_GIB = 70.0
CPU_GIB = 4.0
"""Nominal, of each engine on a CPU: nothing is freed there, and turns are taken all the same."""


async def examine(config: VllmConfig, data_dir: Path, environment: Mapping[str, str], tell: Progress) -> list[Finding]:
    """Runs all checks on models of their own, on the first GPU; writes `doctor/gpu.md`, `gpu.json`, and the figures.

    Raises:
        ConfigError: experts.yaml names flags or GPUs that cannot be.
        EngineError: no engine starts.
    """
    gpus, folder = config.gpus or visible_gpus(environment), data_dir / "doctor"
    gpu = next(iter(gpus.items()), None)
    sizes = ["tiny"] * 2 if gpu is None else ["1b"] * 5 + ["8b"] * 2 * (gpu[1] >= LARGE_GPU_GIB)
    names = {f"{size}-{number}": size for number, size in enumerate(sizes)}
    for number, (name, size) in enumerate(names.items()):
        tell(f"writing model {number + 1} of {len(names)}")
        write_model(folder / "models" / name, SHAPES[size], number, CONTEXT)
    write_adapter(folder / "adapter", SHAPES[sizes[0]], len(sizes))
    file, values = folder / "experts.yaml", composition(config, folder, names, gpu)
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    loaded, billions = parse_config(values), {name: SHAPES[size].billions for name, size in names.items()}
    checks = Checks(folder, billions, None if gpu is None else gpu[0], environment, config.python, file, tell)
    async with hosted_vllm(loaded, folder, folder, environment) as host:
        await checks.run(host)
    for placed in placed_processes(loaded, folder, environment):
        if placed.size is not None and placed.size.need is not None:
            counted = {"counted_peak": placed.size.need.activations, "counted_pinned": placed.size.host_gib}
            checks.memory[placed.process.experts[0]] |= counted
    figures = measured(checks)
    if gpu is not None:  # a CPU moves no weights, so its times are nobody's
        write_figures(data_dir, figures)
    for name, value in figures.model_dump(exclude_defaults=True, exclude={"times"}).items():
        words = f"{value:.2f}, where {getattr(USUAL, name):.2f} is the published figure"
        checks.findings.append(Finding(name.replace("_", " "), "measured", words))
    found = {"findings": [asdict(each) for each in checks.findings], "engines": checks.memory}
    write_whole(folder / "gpu.json", json.dumps({**found, "figures": figures.model_dump()}, indent=1))
    write_whole(folder / "gpu.md", page(checks.findings, gpu))
    return checks.findings


def composition(
    config: VllmConfig, folder: Path, names: Mapping[str, str], gpu: tuple[str, float] | None
) -> dict[str, Any]:
    """experts.yaml of engines of which half are awake at once."""
    awake, asleep_gib = len(names) // 2, (len(names) - len(names) // 2) * USUAL.sleeper_gib
    usable_gib = awake * CPU_GIB + asleep_gib if gpu is None else USABLE_SHARE * gpu[1] - 1
    common = {"engine": "vllm", "context_tokens": CONTEXT, "gpu_gib": (usable_gib - asleep_gib) / awake}
    experts: dict[str, dict[str, Any]] = {
        name: {**common, "model": str(folder / "models" / name), "params_b": SHAPES[size].billions}
        for name, size in names.items()
    }
    experts["adapted"] = {**next(iter(experts.values())), "adapter": str(folder / "adapter")}
    args = config.args if gpu is None else {**config.args, SLEEP_FLAG: True}
    ours = {"env": {**config.env, **DEV_ENV}, "gpus": dict([gpu] if gpu else []), "first_port": free_port(len(names))}
    return {
        "categories": {"some": "half of the queries", "general": "the rest"},
        "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
        "experts": experts,
        "gateway": {"drain_s": 0},
        "vllm": {"python": config.python, "args": args, **ours},
        "residency": {"memory_gb": usable_gib, "host_memory_gb": available_gib() / 2},
    }


def measured(checks: Checks) -> Figures:
    """The largest of what engines needed beside what was counted, of host memory the mean, which others take too;
    published figures where nothing was measured."""
    found = [each for each in checks.memory.values() if "consumed" in each and "counted_peak" in each]
    times = {name: tuple(checks.medians(name)) for name in checks.times}
    if not found:
        return Figures(times=times)
    return Figures(
        cuda_gib=max(each["consumed"] - each["weights"] for each in found),
        graphs_gib=max(each["graphs"] for each in found),
        sleeper_gib=checks.residue_gib,
        activations=max((each["peak"] - each["graphs"]) / each["counted_peak"] for each in found),
        pinned=sum(each.get("pinned", 0.0) for each in found) / sum(each["counted_pinned"] for each in found),
        times=times,
    )


def page(findings: Sequence[Finding], gpu: tuple[str, float] | None) -> str:
    """In Markdown: what is broken first."""
    where = "a CPU, which frees no memory" if gpu is None else f"GPU {gpu[0]} of {gpu[1]:.1f} GiB"
    lines = [f"# Engines on {where}"]
    for verdict in ("broken", "proved", "measured"):
        some = [f"- **{each.name}**: {each.detail}" for each in findings if each.verdict == verdict]
        lines += ["", f"## {verdict.capitalize()}", "", *(some or ["nothing"])]
    return "\n".join([*lines, ""])
