"""Plans of the engine processes that this host runs, with their complete command lines."""

from __future__ import annotations

import json
import os
import random
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from coe.base.errors import EngineError, MissingWeightsError
from coe.base.extras import require_installed
from coe.fleet.figures import read_figures
from coe.fleet.hosts.adapter_files import converted_adapters
from coe.fleet.hosts.llamacpp import LOOPBACK, EngineOptions
from coe.fleet.hosts.orphans import OWNER, owner_mark
from coe.fleet.hosts.vllm_gpus import placed_processes
from coe.fleet.processes.process import ProcessSpec, answers
from coe.fleet.residency.types import SleepLevel
from coe.fleet.vllm.command import DEV_ENV, adapter_folder
from coe.fleet.vllm.faults import cause_in
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine
from coe.router.model_files.weights import resolve_weights

SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
RESERVED_CORES = 1
"""Left to the gateway, the encoder and everybody else. llama.cpp's threads wait for each other at every layer, so one
that has to share its core stops all: on 2 busy cores SmolLM2-135M made 20-45 tokens/s with 1 thread, 1-8 with 2 (ours).
"""

LISTENING_PORTS = (20_000, 32_000)
"""Below the ports of outgoing connections (Linux: from 32,768), one of which could take a port before its engine."""

MIN_SECRET_CHARS = 6
"""A shorter value would blank out innocent words of a log."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One process to run, the experts it serves, and where it listens. `stdin` of all of them is closed.

    `sleeps_at` is the level at which it waits once it has started, None for one that stays awake. `lora_ids` are
    llama.cpp's adapter numbers by expert, None for its bare base.
    """

    spec: ProcessSpec
    experts: tuple[str, ...]
    port: int
    sleeps_at: SleepLevel | None = None
    can_sleep: bool = False
    lora_ids: dict[str, int | None] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """API root."""
        return f"http://{LOOPBACK}:{self.port}/v1"


def llamacpp_plans(
    config: CoeConfig, folder: Path, data_dir: Path, environment: Mapping[str, str], label: str = ""
) -> list[EnginePlan]:
    """One process per base model of the llama.cpp experts; converts adapters that were not converted before.

    Args:
        label: part of the processes' names, where others run beside them.

    Raises:
        MissingExtraError: the engine is not installed.
        MissingWeightsError: a model or an adapter is not on this machine.
        ArtifactError: an adapter is damaged or of another base.
    """
    groups: dict[str, list[str]] = {}
    for name, entry in config.experts.items():
        if entry.engine is Engine.LLAMACPP:
            require_llamacpp(name)
            groups.setdefault(entry.model, []).append(name)
    words = [("llamacpp", label, "" if number == 1 else str(number)) for number in range(1, len(groups) + 1)]
    return [
        llamacpp_plan(config, names, "-".join(filter(None, parts)), folder, data_dir, environment)
        for names, parts in zip(groups.values(), words, strict=True)
    ]


def require_llamacpp(expert: str) -> None:
    """Raises MissingExtraError where the embedded engine is not installed."""
    require_installed(f"experts.{expert}.engine 'llamacpp'", "gguf", "xllamacpp")


def llamacpp_plan(
    config: CoeConfig,
    names: Sequence[str],
    name: str,
    folder: Path,
    data_dir: Path,
    environment: Mapping[str, str],
) -> EnginePlan:
    """The process for `names`, which share a base. Its port is fixed, so a restart keeps the address."""
    engine = config.llamacpp
    model = weights_of(names[0], config.experts[names[0]].model, folder)
    with_adapter = {n: adapter_folder(config.experts[n], folder) for n in names if config.experts[n].adapter}
    adapters = converted_adapters(with_adapter, model, data_dir / "adapters")
    options = EngineOptions(
        model=str(model),
        adapters=tuple(map(str, adapters.values())),
        port=free_port(),
        slots=engine.slots,
        context_tokens=engine.context_tokens,
        threads=engine.threads or max(1, cores() - RESERVED_CORES),
    )
    spec = ProcessSpec(
        name=name,
        argv=(sys.executable, "-P", "-m", "coe.fleet.hosts.llamacpp", json.dumps(asdict(options))),
        log=data_dir / "engines" / f"{name}.log",
        is_ready=is_healthy(options.port),
        env=environment,
        secrets=secrets_of(environment),
    )
    numbers = {expert: number for number, expert in enumerate(adapters)}
    return EnginePlan(spec, tuple(names), options.port, lora_ids={expert: numbers.get(expert) for expert in names})


def is_healthy(port: int, path: str = "health") -> Callable[[], Awaitable[bool]]:
    """Asks whether the server at a port is ready."""
    return partial(answers, f"http://{LOOPBACK}:{port}/{path}")


def weights_of(expert: str, model: str, folder: Path) -> Path:
    """The model's file. Raises MissingWeightsError naming the expert."""
    try:
        return resolve_weights(model, folder)
    except MissingWeightsError as error:
        raise MissingWeightsError(f"experts.{expert}.model: {error}") from error


def vllm_plans(config: CoeConfig, folder: Path, data_dir: Path, environment: Mapping[str, str]) -> list[EnginePlan]:
    """The processes of `placed_processes`. Raises as that does."""
    plans = []
    for placed in placed_processes(config, folder, environment, read_figures(data_dir)):
        process = placed.process
        env = {**environment, **process.env, OWNER: owner_mark(data_dir)}
        spec = ProcessSpec(
            name=process.name,
            argv=process.argv,
            log=data_dir / "engines" / f"{process.name}.log",
            is_ready=is_healthy(process.port),
            env=env,
            start_timeout_s=config.vllm.start_timeout_s,
            stop_grace_s=20.0,
            secrets=secrets_of(env),
            explain=cause_in,
        )
        can_sleep = DEV_ENV.items() <= process.env.items()
        plans.append(EnginePlan(spec, process.experts, process.port, placed.sleeps_at, can_sleep=can_sleep))
    return plans


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values that no message may show: those whose name says key, token, secret or password. Longest first."""
    values = {
        value
        for name, value in environment.items()
        if len(value) >= MIN_SECRET_CHARS and any(word in name.upper() for word in SECRET_WORDS)
    }
    return tuple(sorted(values, key=len, reverse=True))


def refuse_taken_ports(plans: Sequence[EnginePlan]) -> None:
    """Otherwise the health check of a process that cannot listen would be answered by the program that has its port.

    Raises:
        EngineError: names the engine, its port and the key that chooses another.
    """
    for plan in plans:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, plan.port))
            except OSError as error:
                raise EngineError(
                    f"{plan.spec.name} cannot listen on port {plan.port} ({error.strerror}); "
                    "choose another range by vllm.first_port"
                ) from error


def free_port(count: int = 1) -> int:
    """A port that is free now, and so are the next `count` - 1."""
    while True:
        first = random.randrange(*LISTENING_PORTS)
        with ExitStack() as probes, suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.socket()).bind((LOOPBACK, port))
            return first


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
