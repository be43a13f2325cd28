"""`coe retrain --every`: periods, signals, rounds that fail, and rounds of others."""

import signal
import subprocess
import sys

import pytest

from coe.base.errors import ConfigError
from coe.base.period import parse_period
from coe.cli.command_line import run
from coe.decision_log.database import Database
from coe.fleet.router_registry import Registry
from coe.router.live_pointer import LIVE_FILE
from coe.training.retrain_lock import Leases
from tests.training.trained_folder import make_trained


@pytest.mark.parametrize(
    ("value", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("1.5h", 5400), ("1d", 86400), ("2w", 1209600)]
)
def test_periods(value, seconds):
    assert parse_period("--every", value) == seconds


@pytest.mark.parametrize("value", ["", "1", "h", "0h", "-1h", "3 days", "one hour", "100000d", "9" * 400 + "d"])
def test_what_is_no_period_is_named(value):
    with pytest.raises(ConfigError, match=f"--every: '{value}' is not a period; allowed"):
        parse_period("--every", value)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_command_survives_a_failed_round_and_stops_cleanly(tmp_path, number):
    (tmp_path / "routers").mkdir()
    Database(f"sqlite:///{tmp_path / 'coe.db'}").close()
    (tmp_path / "routers" / LIVE_FILE).write_text("{")
    command = [sys.executable, "-m", "coe", "retrain", "--every", "1h", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "coe retrain every 1h" in process.stderr.readline()
        assert any("coe retrain failed after" in line and "live.json" in line for line in process.stderr)
        process.send_signal(number)
        _, rest = process.communicate()
    assert process.returncode == 0
    assert rest.endswith("stopped\n")


def test_one_of_several_on_a_schedule_runs_a_round_and_the_others_leave_it_out(tmp_path, capsys):
    make_trained(tmp_path)
    Database(f"sqlite:///{tmp_path / 'data' / 'coe.db'}").close()
    folder = ["--config", str(tmp_path / "experts.yaml"), "--data-dir", str(tmp_path / "data")]
    words = [*folder, "--every", "1h", "--once"]
    for said in ("", "another process has just retrained, so this round is left out\n"):
        assert run("retrain", words) == 0
        assert capsys.readouterr().err.endswith(said)
    with Leases(f"sqlite:///{tmp_path / 'data' / 'coe.db'}").acquire():
        assert run("retrain", words) == 0
        assert capsys.readouterr().err.endswith("was killed in the last 60 s, so this round is left out\n")
    assert len(Registry(tmp_path / "data" / "routers").rounds()) == 1
    assert run("retrain", folder) == 0, "asked for by hand, it runs"
    assert len(Registry(tmp_path / "data" / "routers").rounds()) == 2
