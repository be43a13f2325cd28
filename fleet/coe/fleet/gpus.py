"""The GPUs of this host, by the names that CUDA_VISIBLE_DEVICES has for them: numbers, UUIDs, parts of one (MIG)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from coe.base.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
AMD = Path("/dev/kfd")
MIG = re.compile(r"MIG \S*?(\d+)gb\S*\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")


def named_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that an environment names, in order; empty where it names none."""
    return [each.strip() for each in environment.get(VISIBLE, "").split(",") if each.strip()]


def visible_gpus(environment: Mapping[str, str], named: Collection[str] = ()) -> dict[str, float]:
    """GiB of each GPU that nvidia-smi lists, less those that the environment hides; empty where there is none.

    Args:
        named: the names that entries have for GPUs; a GPU that none of them names has its number.

    Raises:
        ConfigError: the GPUs are AMD's, whose memory nobody lists here.
    """
    listed = listed_gpus()
    if not listed and AMD.exists() and environment.get(VISIBLE) != "":
        raise ConfigError(
            "vllm.gpus: this host has AMD GPUs, which coe does not list; allowed: the number of each with its GiB, "
            f"such as {{0: 192, 1: 192}}, or {VISIBLE}= (nothing) in the environment to use none"
        )
    found: dict[str, float] = {}
    seen: set[str] = set()
    shown = named_gpus(environment) if VISIBLE in environment else [each for each in listed if each.isdigit()]
    for name in (*named, *shown):
        known = next((each for each in listed if each == name or (name[:4] == "GPU-" and each.startswith(name))), None)
        if known is not None and listed[known].uuid not in seen:
            seen.add(listed[known].uuid)
            found[name] = listed[known].gib
    return found


class Gpu(NamedTuple):
    """A GPU, or a part of one."""

    uuid: str
    gib: float


def listed_gpus() -> dict[str, Gpu]:
    """Each by its number and by its UUID, and parts of GPUs (MIG) by theirs; empty without nvidia-smi."""
    query = ("--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
    found: dict[str, Gpu] = {}
    for line in nvidia_smi(*query).splitlines():
        number, uuid, mib = (part.strip() for part in line.split(","))
        found[number] = found[uuid] = Gpu(uuid, float(mib) / 1024)
    return found | {uuid: Gpu(uuid, float(gib)) for gib, uuid in MIG.findall(nvidia_smi("-L"))}


def nvidia_smi(*words: str) -> str:
    try:
        return subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
