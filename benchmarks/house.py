"""Size and structure of the code in figures: `python -m benchmarks.house`, for docs/decisions/66-size.md.

`--check`, in `make lint`, fails where a figure is above its ceiling in benchmarks/house.toml.
"""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, get_args

import typer
from pydantic import BaseModel

from coe.cli.command_line import APP
from coe.cli.commands import COMMANDS
from coe.decision_log.privacy import load_key
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.providers import echo
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import live_router
from coe.gateway.settings import Settings
from coe.router.config.composition import CoeConfig, load_config
from coe.training.retrain import run_retrain
from tests.gateway.retrieval.serving import serving
from tests.gateway.running import MemoryStore
from tests.memory_log import MemoryLog
from tests.training.test_retrain import NOW, log_answers, retrainable
from tests.training.trained_folder import EXPERTS, make_trained

ROOT = Path(__file__).parents[1]
ROOMS = ("base", "router", "fleet", "decision_log", "retrieval", "gateway", "training", "eval", "cli")
CORE = ("router", "gateway", "decision_log", "training")
"""What a gateway that learns needs."""

BESIDE = ("examples", "docs")
"""Their code counts as production too: the demo's experts and encoders, and the site."""

RUNS = 10
"""Chats, or searches, of which the one that enters fewest files is reported: during others something polled."""

SINCE = {
    "keys, teams and their caps": """
        gateway/keys/* gateway/commands/keys.py gateway/chat/limits.py decision_log/admin_log.py
        gateway/endpoints/spend.py
    """,
    "three more client APIs": """
        gateway/chat/adapters/*
    """,
    "batches": """
        gateway/batches/* gateway/endpoints/batches.py
    """,
    "console": """
        gateway/console/* gateway/endpoints/admin.py gateway/endpoints/experts.py decision_log/listing.py
    """,
    "changes without a restart": """
        gateway/changes/* gateway/lifecycle/swap.py
    """,
    "fleet: residency, replicas, GPUs": """
        fleet/residency* fleet/calls/replicas.py fleet/hosts/vllm_*.py fleet/vllm/desired_state.py
        gateway/experts/availability.py
    """,
    "strategies": """
        router/strateg* training/strategies/* gateway/chat/strategy_run.py
        eval/routing/strategy_arms.py router/answers/*
    """,
    "answer cache": """
        gateway/answer_cache.py
    """,
    "LoRA experts": """
        training/lora/*
    """,
    "traces": """
        gateway/telemetry/*
    """,
    "files for Compose, Kubernetes, Ray": """
        gateway/deploy/* eval/ray_engine.py
    """,
    "conversations": """
        router/reading/conversation.py gateway/chat/conversations.py
    """,
    "from other gateways: settings, logs, savings": """
        fleet/setup/* router/prices/price_list.py eval/log/foreign_logs.py eval/log/savings.py
    """,
    "certificates": """
        router/policy/floor.py eval/metrics/betting.py eval/certify/* fleet/certificate.py
    """,
    "learning: exploration, takeovers, worth": """
        training/bets.py training/learned_map.py training/change_points.py training/category_mix.py
        eval/log/*worth*.py
        training/feedback_bias.py router/policy/exploration.py
    """,
}
"""Capabilities that were asked for after the rooms were planned, and the files that came with each: none was in commit
01322647, by this name or another."""

CHAT = b'{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "probe 3 of sql"}]}'


def modules() -> dict[str, str]:
    """Text of each module by name."""
    return {module_of(path): (ROOT / path).read_text() for path in files_of(ROOMS)}


def files_of(rooms: Iterable[str]) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *(f"{room}/*.py" for room in rooms)], cwd=ROOT, capture_output=True)
    return listed.stdout.decode().split()


def lines_of(texts: Iterable[str]) -> int:
    return sum(len(text.splitlines()) for text in texts)


def module_of(path: str) -> str:
    """Module of a file such as `gateway/coe/gateway/chat/chat.py`."""
    return path.partition("/")[2][:-3].replace("/", ".").removesuffix(".__init__")


def imports(nodes: Iterable[ast.AST], known: Iterable[str], *, within_functions: bool) -> Iterator[str]:
    """Modules that code imports when it runs, so none that only type checkers see."""
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            for each in node.names:
                name = f"{node.module}.{each.name}"
                yield name if name in known else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif within_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(ast.iter_child_nodes(node), known, within_functions=within_functions)


def closure(start: str, texts: dict[str, str]) -> set[str]:
    """A module and all that are imported with it."""
    found, waiting = {start}, [start]
    while waiting:
        tree = ast.parse(texts[waiting.pop()])
        new = {name for name in imports(tree.body, texts, within_functions=False) if name in texts} - found
        found |= new
        waiting += new
    return found


def importers(texts: dict[str, str]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for name, text in texts.items():
        for imported in imports(ast.parse(text).body, texts, within_functions=True):
            found[imported].add(name)
    return found


def capability_of(path: str) -> str:
    found = (name for name, patterns in SINCE.items() if any(fnmatch(path, pattern) for pattern in patterns.split()))
    return next(found, f"what existed then, in {path.split('/')[0].removesuffix('.py')}")


def options_of(command: str) -> int:
    module, function = COMMANDS[command].target.split(":")
    app = typer.Typer(add_completion=False)
    app.command()(getattr(import_module(module), function))
    shown = typer.main.get_command(app).params
    return sum(each.param_type_name == "option" and not getattr(each, "hidden", False) for each in shown)


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections(part)


def by_capability(texts: dict[str, str], commands: Iterable[str]) -> dict[str, tuple[int, int, list[str]]]:
    """Lines, files and commands by capability, the largest first. A file counts as a whole."""
    of = {module: capability_of(f"{module.removeprefix('coe.').replace('.', '/')}.py") for module in texts}
    sizes, files = Counter[str](), Counter(of.values())
    for module, text in texts.items():
        sizes[of[module]] += len(text.splitlines())
    names = {name: of[COMMANDS[name].target.partition(":")[0]] for name in commands}
    return {each: (size, files[each], [n for n in names if names[n] == each]) for each, size in sizes.most_common()}


def keys_of(section: type[BaseModel], seen: set[type[BaseModel]]) -> int:
    """Keys of a part of experts.yaml and of the parts in it."""
    if section in seen:
        return 0
    seen.add(section)
    fields = section.model_fields.values()
    return len(fields) + sum(keys_of(each, seen) for field in fields for each in sections(field.annotation))


async def chat(port: int) -> bytes:
    """One streamed chat on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {len(CHAT)}"
    writer.write(f"{head}\r\n\r\n".encode() + CHAT)
    answer = await reader.read()
    writer.close()
    return answer


class Entered:
    """Calls by file while they are counted."""

    def __init__(self) -> None:
        self.calls, self._is_on = Counter[str](), False

    def count(self, frame: FrameType, kind: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if self._is_on and kind == "call" and path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ROOMS:
            self.calls["/".join(path.relative_to(ROOT).parts[2:])] += 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        self._is_on, self.calls = True, Counter()
        threading.setprofile(self.count)
        sys.setprofile(self.count)
        yield
        self._is_on = False
        sys.setprofile(None)
        threading.setprofile(None)


@asynccontextmanager
async def small_gateway() -> AsyncIterator[Gateway]:
    """A gateway that listens: hashing encoder, map, echo, a log in memory, no Redis."""
    with tempfile.TemporaryDirectory() as name:
        folder = make_trained(Path(name))
        config, data = load_config(folder / "experts.yaml"), folder / "data"
        live = live_router(Settings(config_path=folder / "experts.yaml", data_dir=data), config)
        await live.refresh()
        pool = ExpertPool({name: echo.build(echo.Options(model=name)) for name in EXPERTS})
        gateway = Gateway(Parts(config, pool, live, MemoryLog(), MemoryStore(), hash_key=load_key(data), seed=0))
        await gateway.start()
        try:
            yield gateway
        finally:
            await gateway.stop()


async def files_of_a_chat() -> Counter[str]:
    """Calls by file of one warm chat, from the socket to the log's sink."""
    found = Entered()
    async with small_gateway() as gateway:
        await gateway.parts.pool.stop_probing()  # a probe beside a slow chat is no part of it
        for _ in range(3):
            assert b"[DONE]" in await chat(gateway.port)
        runs = []
        for _ in range(RUNS):
            with found.counting():
                await chat(gateway.port)
            runs.append(found.calls)
    return min(runs, key=len)


async def files_of_a_search() -> Counter[str]:
    """Calls by file of one warm search of a vector store, as of a chat."""
    found = Entered()
    threading.setprofile(found.count)  # of threads that begin from now on
    with tempfile.TemporaryDirectory() as name:
        async with serving(Path(name)) as gateway:
            await gateway.gateway.parts.pool.stop_probing()  # a probe beside a slow search is no part of it
            gateway.log.store = None  # a consumer writes rows, after the search
            store = await gateway.store_of({"cats.txt": "cats purr when content", "dogs.txt": "dogs bark at night"})
            for _ in range(3):
                assert (await gateway.search(store, "which animal barks"))[0] == 200
            runs = []
            for _ in range(RUNS):
                with found.counting():
                    await gateway.search(store, "which animal barks")
                runs.append(found.calls)
    threading.setprofile(None)
    return min(runs, key=len)


def files_of_a_retrain() -> Counter[str]:
    """Calls by file of a round of learning that promotes, on a small log; reading the log and the bets are in it."""
    found = Entered()
    with tempfile.TemporaryDirectory() as name:
        request = retrainable(Path(name))
        log_answers(request, {"left": 0.2, "right": 0.9})
        with found.counting():
            assert run_retrain(request, now=NOW).is_promoted
    return found.calls


class Measured(NamedTuple):
    """A figure that has a ceiling, and the files that it counts where it counts files."""

    value: int
    files: Iterable[str] = ()


def measured(texts: dict[str, str], commands: list[str]) -> dict[str, Measured]:
    """Each figure of benchmarks/house.toml by its name there."""
    chat, search, retrain = asyncio.run(files_of_a_chat()), asyncio.run(files_of_a_search()), files_of_a_retrain()
    return {
        "lines": Measured(lines_of(texts.values()) + lines_of((ROOT / path).read_text() for path in files_of(BESIDE))),
        "lines_of_core": Measured(lines_of(text for name, text in texts.items() if name.split(".")[1] in CORE)),
        "commands": Measured(len(commands)),
        "options": Measured(sum(map(options_of, commands)) + len(typer.main.get_command(APP).params)),
        "keys": Measured(keys_of(CoeConfig, set())),
        "closure_of_chat": Measured(len(closure("coe.gateway.chat.chat", texts))),
        "files_of_a_chat": Measured(len(chat), chat),
        "files_of_a_search": Measured(len(search), search),
        "files_of_a_retrain": Measured(len(retrain), retrain),
    }


def check(found: dict[str, Measured]) -> list[str]:
    """Figures above their ceiling, a line each."""
    ceilings = tomllib.loads((ROOT / "benchmarks" / "house.toml").read_text())
    assert ceilings.keys() == found.keys()
    return [
        " ".join((f"{name}: {figure.value}, where at most {ceilings[name]} are allowed", *figure.files))
        for name, figure in found.items()
        if figure.value > ceilings[name]
    ]


def details(texts: dict[str, str], commands: list[str]) -> Iterator[str]:
    """What the ceilings do not hold: lines by room and capability."""
    lines = Counter[str]()
    for name, text in texts.items():
        lines[name.split(".")[1]] += len(text.splitlines())
    yield f"{len(texts)} files; {dict(lines.most_common())}"
    for capability, (size, files, names) in by_capability(texts, commands).items():
        options = sum(map(options_of, names))
        yield f"  {capability}: {size} lines, {files} files, {len(names)} commands, {options} options"
    used = importers(texts)
    yield f"modules with one importer: {sum(len(used[name]) == 1 for name in texts)}"


def main() -> int:
    texts = modules()
    commands = [name for name, command in COMMANDS.items() if command.summary]
    found = measured(texts, commands)
    if sys.argv[1:] == ["--check"]:
        above = check(found)
        print(*above, sep="\n", end="\n" * bool(above))
        return bool(above)
    print(*details(texts, commands), sep="\n")
    for name, figure in found.items():
        print(f"{name}: {figure.value}", *figure.files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
