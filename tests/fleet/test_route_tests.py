"""`coe route --tests` on a real, small router: what it prints, and the status it ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from coe.cli import command_line as cli
from coe.router.build import live_router
from coe.router.config.composition import load_config
from tests.training.trained_folder import make_trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trained(tmp_path_factory.mktemp("routes"))


def route(folder: Path, *arguments: str) -> int:
    return cli.run("route", ["--config", str(folder / "experts.yaml"), "--data-dir", str(folder / "data"), *arguments])


def test_expectations_decide_the_status(folder, capsys):
    router = live_router(load_config(folder / "experts.yaml"), folder / "data")
    right, wrong = router.experts[:2]
    file = folder / "routes.test.yaml"
    text = f"cases:\n  - {{name: one, text: probe 3 of sql, not_expert: {right}}}\n"
    file.write_text(text)
    first = route(folder, "--tests", str(file))
    assert "1 cases," in capsys.readouterr().out
    file.write_text(text.replace("not_expert", "expert"))
    assert route(folder, "--tests", str(file)) == 1 - first  # it is this expert, or it is not
    file.write_text(f"cases:\n  - {{name: one, text: probe 3 of sql, not_expert: {wrong}, expert: {wrong}}}\n")
    assert route(folder, "--tests", str(file)) == 1
    assert f"'{wrong}' is also the expected expert" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a text, or --tests FILE"),
        (["hello", "--tests", "routes.test.yaml"], "give a text, or --tests FILE"),
        (["hello", "--policy", "fast"], "unknown policy 'fast'"),
        (["--tests", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(folder, capsys, arguments, message):
    assert route(folder, *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_missing_router_is_named(folder, tmp_path, capsys):
    assert cli.run("route", ["hello", "--config", str(folder / "experts.yaml"), "--data-dir", str(tmp_path)]) == 1
    assert "there is no live router yet" in capsys.readouterr().err
