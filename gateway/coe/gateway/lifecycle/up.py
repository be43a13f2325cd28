"""`coe up`: services, experts, gateway, and the first router where there is none."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pydantic import SecretStr
from rich.markup import escape
from rich.text import Text

from coe.base.errors import ArtifactError, ConfigError, EngineError
from coe.base.extras import require_extras
from coe.base.parent_death import coe_words, dying_with_parent
from coe.base.shipped import answers_file
from coe.cli.terminal import Terminal
from coe.fleet.figures import read_figures
from coe.fleet.processes.process import end_child
from coe.fleet.processes.stop_signal import Life, live_until_signal
from coe.gateway.check import faults, find_problems
from coe.gateway.keys.key_store import new_secret
from coe.gateway.lifecycle.composition import running_composition
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.lifecycle.start import agreed_config, asks_for_keys, noted_start
from coe.gateway.settings import OFF, Settings, on_folder
from coe.router.config.composition import CoeConfig
from coe.router.live_pointer import LIVE_FILE, ROUTERS_FOLDER

KEY_VARIABLE = "COE_API_KEY"
"""Variable by which the commands that we run get a key of the gateway."""

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


class UpView:
    """The output: a spinner on a terminal, plain lines in a pipe.

    `begun_s` is when the start began, on the clock of `time.perf_counter`.
    """

    def __init__(self, console: Terminal, begun_s: float | None = None) -> None:
        self._console = console
        self._begun_s = time.perf_counter() if begun_s is None else begun_s

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Shows `title` while the block runs (in a pipe a line before it), and its outcome and duration after it."""
        outcomes, begin = [title], time.perf_counter()
        if self._console.is_terminal:
            with self._console.status(escape(title)):
                yield outcomes.append
        else:
            self._line((f"{title} ...", "dim"))
            yield outcomes.append
        took = f" ({time.perf_counter() - begin:.1f} s)"
        self._line(("✓", "green"), f" {outcomes[-1]}", (took, "dim"))

    def note(self, text: str) -> None:
        """One line that is neither step nor result."""
        self._line((text, "dim"))

    def ready(self) -> None:
        """Says how long the start took until the gateway could answer."""
        self._line((f"ready after {time.perf_counter() - self._begun_s:.1f} s", "bold"))

    def command(self, title: str, words: Sequence[str]) -> None:
        """Announces a command whose output follows."""
        self._line((title, "bold"), (f" $ {' '.join(words)}", "dim"))

    def ending(self, base_url: str, *, needs_key: bool, has_console: bool = True) -> None:
        """Prints the addresses and a command to copy."""
        key = ' -H "authorization: Bearer $COE_API_KEY"' if needs_key else ""
        self._line(("API", "bold"), f"      {base_url}   ", ('(any OpenAI client; model "auto")', "dim"))
        if has_console:
            self._line(("Console", "bold"), f"  {base_url.removesuffix('/v1')}/console")
        self._line()
        self._line(
            f"curl {base_url}/chat/completions -H 'content-type: application/json'{key} "
            """-d '{"model": "auto", "messages": [{"role": "user", "content": "What is 12 * 7?"}]}'\n"""
        )

    def _line(self, *parts: str | tuple[str, str]) -> None:
        """Texts, each alone or with its style."""
        self._console.print(Text.assemble(*parts), soft_wrap=True)


async def run_up(
    settings: Settings,
    view: UpView,
    *,
    once: bool,
    probes: Path | None = None,
    is_regrading: bool = False,
) -> None:
    """Runs until SIGINT or SIGTERM, or with `once` until the gateway is ready.

    Args:
        probes: folder of the probes of the first measurement, instead of the shipped ones.
        is_regrading: ask every expert every probe again, and fit a router from that.

    Raises:
        RouterError: whatever kept it from starting.
    """
    start, warnings = agreed_config(settings)
    config = start.config
    refuse_problems(settings, config)
    for warning in warnings:
        view.note(f"warning: {warning}")

    async def program(life: Life) -> None:
        found = await noted_start(settings, start)
        chosen = await asyncio.to_thread(with_own_key, settings, config)
        async with running_composition(chosen, config, view, found, runs_vllm=True) as gateway:
            await ensure_router(gateway, chosen, config, view, probes, is_regrading=is_regrading)
            view.ready()
            life.is_starting = False
            view.ending(client_url(gateway), needs_key=bool(chosen.api_keys), has_console=config.gateway.console)
            if once:
                return
            if chosen.learn_every != OFF:
                view.note(f"learns from the log every {chosen.learn_every}; `coe up --no-learn` does not")
            view.note("Ctrl-C stops everything.")
            await life.stop.wait()
            view.note("stopping")

    if await live_until_signal(program) and once:
        raise EngineError("stopped before the gateway was ready")


def refuse_problems(settings: Settings, config: CoeConfig) -> None:
    """Refuses what `coe check` refuses, and a start without the packages that measure, fit and learn, before anything
    is asked. Raises ConfigError."""
    problems = [*faults("", partial(require_extras, "`coe up`", ["train"]))]
    if problems := problems + find_problems(config, settings.config_path, os.environ, read_figures(settings.data_dir)):
        raise ConfigError("\n".join(problems), problems)


def with_own_key(settings: Settings, config: CoeConfig) -> Settings:
    """Settings with a key for our own queries, which ends with this process, where the gateway will ask for one and
    COE_API_KEYS has none."""
    if settings.api_keys or not asks_for_keys(settings, config):
        return settings
    return settings.model_copy(update={"api_keys": (SecretStr(new_secret()),)})


async def ensure_router(
    gateway: Gateway,
    settings: Settings,
    config: CoeConfig,
    view: UpView,
    probes: Path | None,
    *,
    is_regrading: bool,
) -> None:
    """Makes the first router when there is none, or another where all is graded again, and says which one serves.

    Raises:
        EngineError: measuring or fitting failed.
        ArtifactError: there is a router and it cannot be used.
    """
    live = gateway.parts.live
    if is_regrading or (live.current is None and not (settings.data_dir / ROUTERS_FOLDER / LIVE_FILE).exists()):
        environment = dict(os.environ)
        if settings.plain_keys:
            environment[KEY_VARIABLE] = settings.plain_keys[0]
        collect = collect_words(client_url(gateway), tuple(config.experts), settings, probes)
        known = ["--answers-from", str(answers_file())] if answers_file().exists() else []
        source = ["--again"] if is_regrading else known
        train = on_folder("train", settings)
        for title, words in ("measuring what every expert can do", [*collect, *source]), ("fitting the router", train):
            view.command(title, ["coe", *words])
            await run_coe(words, environment)
        await live.refresh()
    if live.current is None:
        raise ArtifactError(f"the live router cannot be used: {live.last_error}; `coe train` makes another")
    view.note(f"router {live.current.version[:12]}: {len(live.current.experts)} experts measured")
    for name, policy in live.current.policies.items():
        if policy.exploration is not None:
            view.note(f"policy {name} {policy.exploration.words}; `exploration: off` in experts.yaml ends it")
    if unmeasured := [name for name in config.experts if name not in live.current.experts]:
        view.note(
            f"not in the map, because never measured: {', '.join(unmeasured)}; `coe experts probe NAME` puts one there"
        )


def client_url(gateway: Gateway) -> str:
    """The API root as a client on this machine names it."""
    host = ANY_ADDRESS.get(gateway.host.strip("[]"), gateway.host)
    return gateway.url.replace(f"//{gateway.host}:", f"//{host}:")


def collect_words(base_url: str, experts: Sequence[str], settings: Settings, probes: Path | None) -> list[str]:
    """`coe eval collect`: every expert answers every probe, unless its answer is known."""
    words = ["eval", "collect", "--base-url", base_url, "--experts", ",".join(experts)]
    words += ["--experts-file", str(settings.config_path), "--out", str(settings.data_dir / "outcomes" / "probes")]
    return words if probes is None else [*words, "--probes", str(probes)]


async def run_coe(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs `coe ARGUMENTS` with our terminal, in a process of its own: its end gives back the memory that a fit takes,
    which the gateway beside it would hold for weeks, and the gateway may not import what measures and fits. Ends it
    when we are cancelled.

    Raises:
        EngineError: it failed; its own words are on the terminal already.
    """
    command = dying_with_parent(*coe_words(*arguments))
    child = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, env=dict(environment))
    try:
        status = await child.wait()
    finally:
        await end_child(child)
    if status != 0:
        raise EngineError(f"`coe {arguments[0]}` failed with exit status {status}; its message is above")
