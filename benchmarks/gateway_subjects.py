"""The gateways that are measured: how each is made, once for all runs with the same code, started, and watched."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from benchmarks.gateway_load import PATH
from coe.base.shipped import DEFAULT_CONFIG, shipped_root
from coe.eval.probe_set import load_probes
from coe.fleet.hosts.engine_plans import free_port
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.types import OutcomeTable

NO_GATEWAY, REFERENCE, LITELLM = "no gateway", "pass-through", "LiteLLM proxy"
NAMED, STATIC, STATIC_100, SHIPPED = (
    "coe, expert named",
    "coe, encoder static",
    "coe, encoder static, 100 experts",
    "coe, as shipped",
)
LITELLM_VERSION = "1.100.5"  # the last whose proxy installs from the package index
"""The newest on 2026-12-02."""

TICKS = os.sysconf("SC_CLK_TCK")
READY_DEADLINE_S = 120.0
LOOK_EVERY_S = 0.01
ROOT = Path(__file__).resolve().parents[1]
MAKES_ROUTERS = ("base", "router", "training", "examples/smollm2/seed", "examples/smollm2/probes")


@dataclass(frozen=True)
class Subject:
    """A gateway under test. `argv` starts it on port `{port}`; requests ask for `model` with `key`.

    Args:
        template: folder that each start gets a copy of, as `{folder}`.
        ready_path: answers 200 once it is ready; empty: it is asked for a chat alone.
    """

    name: str
    argv: tuple[str, ...]
    model: str
    key: str = "none"
    environment: Mapping[str, str] = field(default_factory=dict)
    template: Path | None = None
    ready_path: str = ""


@dataclass(frozen=True)
class Running:
    """A started gateway: the leader of its session, its port, and seconds from its start to ready (NaN where it is not
    asked) and to an answer."""

    leader: int
    port: int
    ready_s: float
    answered_s: float


def all_subjects(upstream: str, work: Path) -> list[Subject]:
    """Gateways that are measured; LiteLLM only where it can be installed."""
    static = {"kind": "use_static"}
    found = [
        Subject(NO_GATEWAY, (sys.executable, "-m", "benchmarks.gateway_load", "engine", "{port}"), "expert-0"),
        Subject(REFERENCE, (sys.executable, "-m", "benchmarks.pass_through", "{port}", upstream), "expert-0"),
        coe_subject(NAMED, "expert-0", static, 6, upstream, work),
        coe_subject(STATIC, "auto", static, 6, upstream, work),
        coe_subject(STATIC_100, "auto", static, 100, upstream, work),
        coe_subject(SHIPPED, "auto", None, 6, upstream, work),
    ]
    litellm = litellm_subject(upstream, work)
    return [*found, litellm] if litellm else found


def coe_subject(name: str, model: str, encoder: object, experts: int, upstream: str, work: Path) -> Subject:
    """`coe serve` over a router that was fitted on the seed set, with the log on, as shipped."""
    values = yaml.safe_load((shipped_root() / DEFAULT_CONFIG).read_text())
    names = tuple(f"expert-{i}" for i in range(experts))
    values["experts"] = {
        each: {"engine": "vllm", "url": "http://127.0.0.1:1/v1", "model": each, "context_tokens": 131_072}
        for each in names
    }
    if encoder is not None:
        values["router"]["encoder"] = encoder
    values.pop("retrieval")
    trained = trained_folder(values, names, work)
    template = work / "subjects" / name.replace(" ", "-").replace(",", "")
    shutil.rmtree(template, ignore_errors=True)
    shutil.copytree(trained, template)
    for entry in values["experts"].values():
        entry["url"] = upstream
    (template / "experts.yaml").write_text(yaml.safe_dump(values))
    argv = (*coe("serve", Path("{folder}")), "--port", "{port}")
    return Subject(name, argv, model, template=template, ready_path="/readyz")


def coe(command: str, folder: Path) -> tuple[str, ...]:
    places = ("--config", str(folder / "experts.yaml"), "--data-dir", str(folder / "data"))
    return (sys.executable, "-m", "coe", command, *places)


def trained_folder(values: Mapping[str, object], experts: tuple[str, ...], work: Path) -> Path:
    """A composition and its router, trained unless the same code has trained the same composition before."""
    text = yaml.safe_dump(values)
    folder = work / "trained" / f"{code_hash()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not folder.exists():
        print(f"training {folder.name} ...", file=sys.stderr, flush=True)
        making = folder.with_name(f"making-{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        (making / "experts.yaml").write_text(text)
        write_outcomes(random_outcomes(experts), making / "data" / "outcomes" / "random")
        subprocess.run(coe("train", making), check=True, stdout=subprocess.DEVNULL)
        making.rename(folder)
    return folder


def code_hash() -> str:
    """Hash of the code that makes a router from a composition."""
    digest = hashlib.sha256()
    for place in MAKES_ROUTERS:
        for path in sorted((ROOT / place).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def random_outcomes(experts: tuple[str, ...]) -> OutcomeTable:
    """Scores by chance: each expert takes some category, as in a measured map."""
    probes, rng = load_probes(), np.random.default_rng(0)
    shape = (len(probes), len(experts))
    return OutcomeTable(
        prompt_ids=tuple(probe.id for probe in probes),
        texts=tuple(probe.text for probe in probes),
        categories=tuple(probe.category for probe in probes),
        splits=("train",) * len(probes),
        experts=experts,
        scores=rng.random(shape).astype(np.float32),
        cost_usd=np.full(shape, np.nan, np.float32),
        output_tokens=np.full(shape, 32, np.float32),
        latency_ms=np.full(shape, 500, np.float32),
        metric="random",
        source="benchmark",
    )


def litellm_subject(upstream: str, work: Path) -> Subject | None:
    """LiteLLM's proxy with one model, or None where it cannot be installed."""
    venv = work / f"litellm-{LITELLM_VERSION}"
    installed = venv / ".installed"
    if not installed.exists():
        print("installing LiteLLM ...", file=sys.stderr, flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=False).returncode
        words = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", f"litellm[proxy]=={LITELLM_VERSION}"]
        if made or subprocess.run(words, check=False).returncode:
            return None
        installed.touch()
    config = work / "litellm.yaml"
    params = {"model": "openai/mock", "api_base": upstream, "api_key": "none"}
    entry = {"model_name": "expert-0", "litellm_params": params}
    settings = {"num_retries": 0, "telemetry": False}
    config.write_text(yaml.safe_dump({"model_list": [entry], "litellm_settings": settings}))
    program = str(venv / "bin" / "litellm")
    argv = (program, "--config", str(config), "--host", "127.0.0.1", "--port", "{port}", "--num_workers", "1")
    key = f"sk-{secrets.token_hex(24)}"
    quiet = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
    }
    return Subject(LITELLM, argv, "expert-0", key, quiet)


@contextmanager
def running(subject: Subject, core: int, work: Path) -> Iterator[Running]:
    """The gateway on one core, once it has answered a chat.

    Raises:
        SystemExit: it does not answer in time; says the end of its output.
    """
    port, folder, log = free_port(), work / "run", work / "subject.log"
    shutil.rmtree(folder, ignore_errors=True)
    if subject.template is not None:
        shutil.copytree(subject.template, folder)
    argv = [word.replace("{port}", str(port)).replace("{folder}", str(folder)) for word in subject.argv]
    start = time.perf_counter()
    with process(argv, core, log, subject.environment) as leader:
        ready_s = math.nan
        if subject.ready_path:
            wait_until_answered(urllib.request.Request(f"http://127.0.0.1:{port}{subject.ready_path}"), subject, log)
            ready_s = time.perf_counter() - start
        wait_until_answered(first_chat(port, subject), subject, log)
        yield Running(leader, port, ready_s, time.perf_counter() - start)


def first_chat(port: int, subject: Subject) -> urllib.request.Request:
    body = {"model": subject.model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    headers = {"content-type": "application/json", "authorization": f"Bearer {subject.key}"}
    return urllib.request.Request(f"http://127.0.0.1:{port}{PATH}", json.dumps(body).encode(), headers)


def wait_until_answered(request: urllib.request.Request, subject: Subject, log: Path) -> None:
    until = time.monotonic() + READY_DEADLINE_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).read()
        except OSError as error:
            if time.monotonic() > until:
                raise SystemExit(f"{subject.name} does not answer ({error}): {log.read_text()[-800:]}") from error
            time.sleep(LOOK_EVERY_S)
        else:
            return


@contextmanager
def process(argv: Sequence[str], core: int, log: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """Runs a program on one core, in a session of its own, which is ended as a whole. Python may keep its bytecode, as
    an installed program has it."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("wb") as out:
        child = subprocess.Popen(
            ["taskset", "-c", str(core), *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**inherited, **environment},
            start_new_session=True,
        )
    try:
        yield child.pid
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def stats_of(leader: int) -> list[list[str]]:
    """The fields of /proc/PID/stat, from the state on, of a process and of all that it started, in whichever session:
    the log's server has one of its own."""
    fields = dict[int, list[str]]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    family = {leader}
    while more := {pid for pid, each in fields.items() if int(each[1]) in family} - family:
        family |= more
    return [each for pid, each in fields.items() if pid in family]


def cpu_s(leader: int) -> float:
    return sum(int(fields[11]) + int(fields[12]) for fields in stats_of(leader)) / TICKS


def rss_mib(leader: int) -> float:
    """Resident memory of all processes, the log's server included."""
    pages = sum(int(fields[21]) for fields in stats_of(leader))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
