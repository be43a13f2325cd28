"""Folders that `--out` may name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coe.base.errors import ConfigError
from coe.cli.command_line import run
from coe.cli.options import require_folder, unix_time


def test_a_folder_may_be_there_or_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_folder(tmp_path)
    require_folder(tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    require_folder(Path("new"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=rf"--out {out}: .*(file|nowhere) is not a folder"):
            require_folder(out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="is read-only"):
        require_folder(tmp_path / "a")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1970-01-02", 86_400.0), ("1970-01-01T01:00+01:00", 0.0), ("1970-01-01T00:10", 600.0)]
)
def test_a_time_without_a_zone_is_utc(text: str, seconds: float) -> None:
    assert unix_time(text) == seconds


def test_a_time_that_is_not_one_is_named_with_its_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("eval log", ["--since", "yesterday", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "coe: --since: 'yesterday' is not an ISO date or time such as 2026-11-25 or 2026-11-25T08:00\n"
    )


def test_commands_ask_the_gateway_on_the_port_that_it_takes_from_the_environment() -> None:
    show = [sys.executable, "-c", "from coe.cli.options import GATEWAY_URL; print(GATEWAY_URL)"]
    shown = [subprocess.check_output(show, env={**os.environ, "COE_PORT": port}, text=True) for port in ("8123", "")]
    assert shown == ["http://127.0.0.1:8123/v1\n", "http://127.0.0.1:8000/v1\n"]
