"""Data of people is for the user it runs as, and nobody else on the machine."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coe.base.errors import ConfigError
from coe.base.private_folder import close_to_others, data_folder_of, make_private
from coe.decision_log.database import Database
from coe.gateway.lifecycle.start import make_data_folder
from coe.gateway.settings import Settings
from tests.small_composition import composition_of

CONFIG = composition_of({"coder": {"engine": "echo", "model": "m"}})


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """As most machines have it: everybody may read what is made without care."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(folder: Path) -> dict[str, str]:
    found = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): oct(mode(path)) for path in found if mode(path) & 0o077}


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COE_", "REDIS", "DATAB"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )


def coe(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "experts.yaml").write_text(json.dumps(CONFIG))
    return run_python(folder, "-m", "coe", *arguments)


def test_only_its_user_may_open_what_a_command_writes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    done = coe(tmp_path, "log", "drain")  # a database, and the embedded Redis with its file
    assert done.returncode == 0, done.stderr
    assert (mode(data), mode(data / "coe.db")) == (0o700, 0o600)
    assert (data / "redis").is_dir()
    assert open_to_others(data) == {}


def test_a_folder_from_before_is_closed_and_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "kept"
    for name in ("routers/v1/weights.npz", "outcomes/probes/outcomes.parquet", "spool/r1/spool.db", "log.key"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"x")
    (data / "coe.db-wal").write_bytes(b"")
    (data / "holiday.jpg").write_bytes(b"")
    (data / "scripts").mkdir()
    (data / "scripts" / "run.sh").write_bytes(b"")
    (data / "scripts" / "run.sh").chmod(0o755)
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"")
    (data / "routers" / "link").symlink_to(outside)
    done = coe(tmp_path, "log", "drain", "--data-dir", "kept")
    assert done.returncode == 0, done.stderr
    theirs = {"holiday.jpg": "0o644", "scripts": "0o755", "scripts/run.sh": "0o755", "routers/link": "0o644"}
    assert open_to_others(data) == theirs
    assert (mode(data), mode(data / "routers" / "v1" / "weights.npz"), mode(outside)) == (0o700, 0o600, 0o644)


@pytest.mark.parametrize(
    ("name", "mask"), [("eval routing", "0o22"), ("eval log", "0o22"), ("train", "0o77"), ("eval collect", "0o77")]
)
def test_a_report_keeps_the_umask_of_its_user(tmp_path: Path, name: str, mask: str) -> None:
    code = "import os, sys\nfrom coe.cli.command_line import keep_private\n"
    code += "keep_private(sys.argv[1], [])\nprint(oct(os.umask(0)))"
    done = run_python(tmp_path, "-c", code, name)
    assert done.stdout.strip() == mask, done.stderr


def test_a_crash_leaves_no_core(tmp_path: Path) -> None:
    code = "import resource\nfrom coe.cli.command_line import keep_private\n"
    code += "hard = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
    code += "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))\nkeep_private('serve', [])\n"
    code += "print(resource.getrlimit(resource.RLIMIT_CORE) == (0, hard))"
    assert run_python(tmp_path, "-c", code).stdout == "True\n"


def test_the_database_is_closed_wherever_it_is(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'elsewhere.db'}")) as store:
        store.count()
        names = ("elsewhere.db", "elsewhere.db-wal", "elsewhere.db-shm")
        assert {path.name: oct(mode(path)) for path in tmp_path.iterdir()} == dict.fromkeys(names, "0o600")


def test_the_gateway_closes_the_folder_and_refuses_one_that_it_cannot_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make_data_folder(Settings(data_dir=data))
    assert mode(data) == 0o700
    data.chmod(0o775)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ConfigError, match=r"data is open to other users \(mode 0775\) and belongs to another user"):
        make_private(data)
    assert close_to_others(data) == data


def refuse(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_the_folder_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COE_DATA_DIR", raising=False)
    assert data_folder_of(["--config", "x"]) == Path("data")
    monkeypatch.setenv("COE_DATA_DIR", "/var/lib/coe")
    assert data_folder_of([]) == Path("/var/lib/coe")
    assert data_folder_of(["--data-dir", "here"]) == data_folder_of(["--data-dir=here", "x"]) == Path("here")
    assert data_folder_of(["--data-dir"]) == Path("/var/lib/coe")
