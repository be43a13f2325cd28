"""The public interface, and the command line beside packages of a user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import coe.router
from coe.base.parent_death import coe_words
from coe.router import QueryFacts, Router, RouterError
from tests.training.trained_folder import make_trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trained(tmp_path_factory.mktemp("trained"))


def test_a_router_is_loaded_and_asked_in_two_lines(folder: Path) -> None:
    router = Router.load(folder / "experts.yaml", folder / "data")
    decision = router.route("Which river is the longest of Asia?")
    assert decision.expert == router.expert_of[decision.category] == "left"
    assert decision.router_version == router.version
    probs = router.categories("Which river is the longest of Asia?")
    assert sorted(probs) == ["facts", "sql"]
    assert sum(probs.values()) == pytest.approx(1.0)


def test_a_decision_loads_nothing_that_opens_connections_databases_or_locks(folder: Path) -> None:
    outside = "aiohttp asyncio fastapi fcntl coe.fleet http.client httpx multiprocessing redis requests"
    outside += " sqlalchemy sqlite3 ssl starlette subprocess urllib.request uvicorn"
    program = "import sys; from coe.router import Router; Router.load().route('Which river is the longest of Asia?')"
    program += f"; print(*set('{outside}'.split()) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_what_a_request_needs_rules_experts_out(folder: Path) -> None:
    router = Router.load(folder / "experts.yaml", folder / "data")
    with pytest.raises(RouterError, match="context"):
        router.route("hello", facts=QueryFacts(prompt_chars=10**9))
    with pytest.raises(RouterError, match="unknown policy 'cheap'; allowed: default"):
        router.route("hello", policy="cheap")


def test_a_folder_without_a_router_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RouterError, match=r"live.json: there is no live router yet"):
        Router.load(folder / "experts.yaml", tmp_path)


def test_nothing_else_is_public() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Gateway'; it has QueryFacts, Router"):
        _ = coe.router.Gateway  # type: ignore[attr-defined]


@pytest.mark.parametrize("is_on_path", [False, True])
def test_a_users_own_router_package_is_not_taken_for_ours(tmp_path: Path, is_on_path: bool) -> None:
    for name in ("router", "eval", "training", "gateway"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the package of the user was imported')")
    environment = dict(os.environ)
    if is_on_path:
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])
    script = str(Path(sys.executable).parent / "coe")
    for command in (coe_words("--help"), [script, "--help"]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert "eval collect" in done.stdout


def in_a_users_folder(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program beside packages of a user's own that have the names of ours."""
    for name in ("router", "eval", "base"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text("MINE = True\n")
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)


def test_the_library_is_not_shadowed_by_packages_beside_the_program(folder: Path, tmp_path: Path) -> None:
    program = (
        f"from coe.router import Router; r = Router.load({str(folder / 'experts.yaml')!r}, {str(folder / 'data')!r})"
    )
    done = in_a_users_folder(tmp_path, program + "; print(r.route('Which river is the longest of Asia?').expert)")
    assert (done.stdout, done.stderr) == ("left\n", "")
