"""The command line of the fake: vLLM's own flags, and `--fake-...` for its memory, its pace and its faults."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, Field

ALLOWS_LORA_UPDATES = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
DEV_MODE = "VLLM_SERVER_DEV_MODE"


class Bug(StrEnum):
    """Known faults of vLLM and of stacks on it, each with the report that describes it."""

    LORA_LEVEL_2 = "lora_level_2"  # vllm 39934: with LoRA, reload_weights after a level-2 sleep ends the engine
    LORA_LOST = "lora_lost"  # vllm 53888: after a level-1 sleep adapters answer like their base
    WRONG_WEIGHTS = "wrong_weights"  # vllm 29341, 48284, 52479: after a level-2 wake it answers nonsense
    HOST_MEMORY = "host_memory"  # vllm 16663: host memory that a level-1 sleep took is not given back
    DROPS_ARGUMENTS = "drops_arguments"  # production-stack 953: level and mode are lost, so it sleeps at 1 and aborts


class FakeOptions(BaseModel, frozen=True):
    """Settings of one fake server, ours with a description. Sizes are GiB per GPU."""

    model: str
    served_model_name: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_model_len: int = Field(default=4096, gt=0)
    max_num_seqs: int = Field(default=256, gt=0)
    enable_lora: bool = False
    lora_modules: dict[str, str] = Field(default_factory=dict)
    max_lora_rank: int = 16
    enable_sleep_mode: bool = False
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    is_pooling: bool = False
    is_dev: bool = False
    allows_lora_updates: bool = False
    card: Path | None = Field(default=None, description="folder in which fakes account for a GPU's memory")
    devices: tuple[str, ...] = ("0",)
    card_gib: float = Field(default=80.0, gt=0, description="memory of the GPU")
    weights_gib: float = Field(default=1.0, ge=0, description="of the model, on each GPU")
    cuda_gib: float = Field(default=0.5, ge=0, description="beside the weights, as the log says")
    sleeper_gib: float = Field(default=1.0, ge=0, description="stays on the GPU while it sleeps")
    start_s: float = Field(default=0.0, ge=0, description="until it is ready")
    sleep_s: tuple[float, float] = Field(default=(0.0, 0.0), description="SECONDS, or SECONDS,SECONDS to level 1 and 2")
    wake_s: tuple[float, float] = Field(default=(0.0, 0.0), description="the same, from level 1 and 2")
    tokens_per_s: float = Field(default=0.0, ge=0, description="of one answer; 0: as fast as it can")
    prefill_tokens_per_s: float = Field(default=0.0, ge=0, description="of a prompt, less what is cached")
    answer_tokens: int = Field(default=0, ge=0, description="shortest answer; 0: as long as the question")
    version: str = Field(default="0.32.0", description="that it says it is")
    bugs: frozenset[Bug] = Field(default=frozenset(), description=f"faults to have, of {', '.join(Bug)}")


def parse_command(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> FakeOptions:
    """The options of a command line. Flags of vLLM that change nothing here are ignored; a wrong one of ours exits."""
    if words and words[0] == "serve":
        words = ["--model", *words[1:]]
    parser = argparse.ArgumentParser(prog="fake vLLM", allow_abbrev=False)
    for flag, kind in (("model", str), ("host", str), ("port", int), ("max-model-len", int), ("max-num-seqs", int)):
        parser.add_argument(f"--{flag}", type=kind)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--lora-modules", nargs="+", default=[])
    parser.add_argument("--max-lora-rank", type=int)
    parser.add_argument("--runner", dest="is_pooling", type=lambda runner: runner == "pooling")
    parser.add_argument("--gpu-memory-utilization", type=float)
    for flag in ("enable-lora", "enable-sleep-mode"):
        parser.add_argument(f"--{flag}", action="store_true")
    for name, field in FakeOptions.model_fields.items():
        if field.description:
            flag = f"--fake-{name.replace('_', '-')}"
            parser.add_argument(flag, type=KINDS.get(name, float), help=field.description)
    parsed, _ = parser.parse_known_args(words)
    given = {key.removeprefix("fake_"): value for key, value in vars(parsed).items() if value is not None}
    given["lora_modules"] = dict(module.split("=", 1) for module in given["lora_modules"])
    given.setdefault("served_model_name", [given.get("model", "")])
    given["devices"] = tuple(environment.get("CUDA_VISIBLE_DEVICES", "0").split(","))
    given["is_dev"] = environment.get(DEV_MODE) == "1"
    given["allows_lora_updates"] = environment.get(ALLOWS_LORA_UPDATES, "").lower() in ("1", "true")
    return FakeOptions.model_validate(given)


def two_levels(text: str) -> tuple[float, float]:
    first, _, second = text.partition(",")
    return float(first), float(second or first)


def bugs(text: str) -> frozenset[Bug]:
    return frozenset(map(Bug, text.split(",")))


KINDS: dict[str, Callable[[str], object]] = {
    "answer_tokens": int,
    "bugs": bugs,
    "card": Path,
    "sleep_s": two_levels,
    "version": str,
    "wake_s": two_levels,
}
"""Of the options of ours that are not a number."""
