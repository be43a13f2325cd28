import inspect
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import pytest
import typer

from coe.__main__ import main as entry_point
from coe.cli.command_line import main, run
from coe.cli.commands import COMMANDS, Command


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`coe` in a process of its own."""
    return subprocess.run([sys.executable, "-m", "coe", *arguments], capture_output=True, text=True)


@pytest.fixture
def coe(monkeypatch, capsys):
    """`coe` in this process: fit for what imports no command."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["coe", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, *capsys.readouterr())

    return call


def test_every_command_can_be_imported():
    for command in COMMANDS.values():
        module, function = command.target.split(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_help_names_every_command(coe):
    found = coe("--help")
    assert found.returncode == 0
    for name in COMMANDS:
        assert found.stdout.count(f"\n  {name} ") == 1
    assert max(map(len, found.stdout.splitlines())) <= 80


QUICK = {
    "up": "says each step, and waits for clients then",
    "serve": "waits for clients",
    "experts pull": "the hub's package shows bars, and each model has a line",
    "experts up": "shows each engine as it changes",
    "retrain": "its module only passes on to training.retrain_command, which shows it",
    **dict.fromkeys(("config apply", "route"), "reads one small file"),
    "deploy render": "writes a few files",
    "replay": "makes one decision",
    **dict.fromkeys((name for name in COMMANDS if name.startswith(("keys ", "router "))), "reads or writes a row"),
}
"""Commands that show no progress, and why."""


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - QUICK.keys()))
def test_a_command_that_may_take_long_shows_its_progress(name):
    source = inspect.getsource(import_module(COMMANDS[name].target.partition(":")[0]))
    assert "console_progress()" in source or "working(" in source, "show progress, or say in QUICK why not"


@pytest.mark.parametrize("command", ["train", "eval routing"])
def test_a_negative_seed_is_refused_as_an_option(command, capsys):
    assert run(command, ["--seed", "-1"]) == 2
    assert "Invalid value for '--seed': must be greater than or equal to 0 (got '-1')\n" in capsys.readouterr().err


def test_a_text_is_refused_where_a_number_is_asked_for(capsys):
    assert run("train", ["--seed", "x"]) == 2
    assert "Invalid value for '--seed': must be a valid integer (got 'x')\n" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = "import sys\nsys.argv = ['coe', '--help']\nfrom coe.cli import command_line\n"
    code += "try:\n    command_line.main()\nexcept SystemExit:\n    pass\n"
    heavy = "{'numpy', 'pydantic', 'rich', 'yaml', 'aiohttp', 'fastapi', 'litellm', 'sklearn', 'scipy'}"
    found = subprocess.run(
        [sys.executable, "-c", code + f"sys.stderr.write(str({heavy} & set(sys.modules)))"],
        capture_output=True,
        text=True,
    )
    assert found.stderr == "set()"


ROUTERS = {"coe.router.build", "coe.router.pipeline"}
LIBRARIES = {"numpy", "scipy", "sklearn", "onnxruntime", "tokenizers", "litellm"}


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        ("router", {*ROUTERS, *LIBRARIES, "sqlalchemy"}),
        ("log doctor --help", {*ROUTERS, *LIBRARIES}),
        ("log drain --help", {*ROUTERS, *LIBRARIES}),
        ("log erase --help", {*ROUTERS, *LIBRARIES}),
        ("router --help", {*ROUTERS, *LIBRARIES}),
        ("keys ls --help", {*ROUTERS, *LIBRARIES}),
        ("check", LIBRARIES - {"numpy"}),
    ],
)
def test_a_command_loads_no_router_that_it_does_not_need(tmp_path, command, spared):
    shutil.copy(Path(__file__).parents[2] / "experts.yaml", tmp_path)
    code = "import sys\nfrom coe.__main__ import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
    words = [sys.executable, "-c", code + f"sys.stderr.write(str({spared} & set(sys.modules)))", *command.split()]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert found.stderr.splitlines()[-1:] == ["set()"]


@pytest.mark.parametrize(("status", "ran"), [(0, ["first", "second -x", "third"]), (3, ["first", "second -x"])])
def test_commands_that_a_command_returns_run_after_it_up_to_one_that_fails(monkeypatch, status, ran):
    called = []
    steps = SimpleNamespace(
        first=lambda: called.append("first") or [["go", "second", "-x"], ["go", "third"]],
        second=lambda x: called.append("second -x") or status,
        third=lambda: called.append("third"),
    )
    steps.second.__annotations__["x"] = Annotated[bool, typer.Option("-x")]
    monkeypatch.setitem(sys.modules, "steps", steps)
    for name in ("first", "second", "third"):
        monkeypatch.setitem(COMMANDS, f"go {name}", Command(f"steps:{name}", "A step."))
    assert run("go first", []) == status
    assert called == ran


def test_ctrl_c_while_modules_load_is_status_130(monkeypatch):
    monkeypatch.setattr("coe.cli.command_line.main", interrupted)
    with pytest.raises(SystemExit, match="130"):
        entry_point()


def interrupted():
    raise KeyboardInterrupt


def test_a_reader_who_has_left_is_told_nothing():
    reader, writer = os.pipe()
    os.close(reader)  # before it begins: it might have said all meanwhile
    helped = subprocess.run([sys.executable, "-m", "coe"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (helped.returncode, helped.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek"], "unknown command 'chek'; did you mean 'check'?"),
        (["keys", "lss"], "unknown command 'keys lss'; did you mean 'ls'?"),
    ],
)
def test_a_wrong_command_is_one_clear_line_and_status_2(arguments, message, coe):
    found = coe(*arguments)
    assert found.returncode == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_a_wrong_option_is_one_clear_line_and_status_2():
    found = started("check", "--confg", "x")
    assert found.returncode == 2
    assert "see `coe check --help`" in found.stderr
    assert "Traceback" not in found.stderr


def test_our_own_errors_are_lines_without_a_traceback(tmp_path):
    found = started("check", "--config", str(tmp_path / "none.yaml"))
    assert found.returncode == 1
    assert found.stderr.startswith(f"coe: {tmp_path / 'none.yaml'}: cannot be read")
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["--config", "before.yaml", "check"], "before.yaml"),
        (["check", "--config", "after.yaml"], "after.yaml"),
        (["--config=before.yaml", "check", "--config=after.yaml"], "after.yaml"),
        (["--config", "before.yaml", "--data-dir", "kept", "config", "apply"], "kept"),
        (["check"], "variable.yaml"),
    ],
)
def test_the_places_of_files_are_given_before_or_after_a_command(words, read, coe, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("COE_CONFIG", "variable.yaml")
    monkeypatch.chdir(tmp_path)
    found = coe(*words)
    assert found.returncode == 1
    assert found.stderr.startswith(f"coe: {read}")


@pytest.mark.parametrize("words", [["log"], ["eval"], ["keys", "--help"]])
def test_a_group_alone_shows_its_commands(words, coe):
    found = coe(*words)
    assert found.returncode == 0
    for name, command in COMMANDS.items():
        is_shown = name.startswith(f"{words[0]} ")
        assert not is_shown or f"\n  {name.split()[1]} " in found.stdout
        assert is_shown or command.summary not in found.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("coe re", {"replay", "retrain", "retrieval"}),
        ("coe keys ", {"create", "ls", "update"}),
        ("coe router --sha", {"--share"}),
        ("coe serve --ho", {"--host"}),
    ],
)
def test_a_shell_is_offered_what_may_follow(typed, offered, monkeypatch, coe):
    monkeypatch.setenv("_COE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    assert set(coe().stdout.split()) == offered


def test_the_script_for_a_shell_names_the_command(monkeypatch, coe):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert "complete -o default -F _coe_completion coe" in coe("--show-completion", "bash").stdout
