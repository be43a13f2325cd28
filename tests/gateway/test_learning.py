"""`coe serve` learns: rounds of `coe retrain` by one of all gateways at a time, and none where it is told so."""

from __future__ import annotations

import re
import signal
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import pytest

from coe.base.errors import ConfigError
from coe.fleet.router_registry import Registry
from coe.gateway.settings import read_settings
from tests.gateway.served import end_gateway, start_gateway
from tests.training.trained_folder import make_trained
from tests.waiting import wait_until


def metric(url: str, name: str) -> dict[str, float]:
    """The samples of a metric, by their labels."""
    with urlopen(f"{url.rstrip(',').removesuffix('/v1')}/metrics") as answer:
        text = answer.read().decode()
    return {labels: float(value) for labels, value in re.findall(rf"^{name}(?:{{(.*)}})? (.*)$", text, re.MULTILINE)}


def rounds_of(folder: Path) -> list[datetime]:
    return [datetime.fromisoformat(each["at"]) for each in Registry(folder / "data" / "routers").rounds()]


def processes_of(folder: Path) -> list[str]:
    """Command lines of the rounds that run on a folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return [line for line in lines if " retrain " in line and str(folder) in line]


def test_of_two_gateways_one_at_a_time_retrains_and_both_tell_how_it_ended(tmp_path: Path, redis_url: str) -> None:
    make_trained(tmp_path)
    variables = {"REDIS_URL": redis_url, "COE_LEARN_EVERY": "10s"}
    both = [start_gateway(tmp_path / "experts.yaml", tmp_path / "data", **variables) for _ in range(2)]
    try:
        wait_until(lambda: all(metric(url, "coe_learning_rounds_total")['end="ended"'] for _, url in both))
        assert [metric(url, "coe_learning") for _, url in both] == [{"": 1.0}] * 2
        last = wait_until(lambda: metric(both[0][1], "coe_learning_last_round_seconds"))
        assert last.keys() == {'verdict="decline"'}
        assert max(last.values()) in [at.timestamp() for at in rounds_of(tmp_path)]
    finally:
        said = [end_gateway(process, signal.SIGINT) for process, _ in both]
    rounds = sorted(rounds_of(tmp_path))
    assert all((after - before).total_seconds() >= 9 for before, after in pairwise(rounds))
    assert all("coe retrain ended after" in each for each in said)


def test_the_end_of_a_gateway_ends_its_round(tmp_path: Path) -> None:
    make_trained(tmp_path)
    process, _ = start_gateway(tmp_path / "experts.yaml", tmp_path / "data", COE_LEARN_EVERY="1s")
    wait_until(lambda: processes_of(tmp_path), "a round")
    process.send_signal(signal.SIGTERM)
    end_gateway(process, signal.SIGTERM)
    assert process.returncode == 0
    assert processes_of(tmp_path) == []


def test_a_gateway_that_is_killed_leaves_no_round_behind(tmp_path: Path) -> None:
    make_trained(tmp_path)
    process, _ = start_gateway(tmp_path / "experts.yaml", tmp_path / "data", COE_LEARN_EVERY="1s")
    wait_until(lambda: processes_of(tmp_path), "a round")
    end_gateway(process, signal.SIGKILL)
    wait_until(lambda: not processes_of(tmp_path), "its end")


@pytest.mark.parametrize(("every", "is_on"), [("off", 0.0), ("1h", 1.0)])
def test_a_gateway_learns_unless_it_is_off(tmp_path: Path, every: str, is_on: float) -> None:
    make_trained(tmp_path)
    process, url = start_gateway(tmp_path / "experts.yaml", tmp_path / "data", COE_LEARN_EVERY=every)
    try:
        assert wait_until(lambda: metric(url, "coe_learning")) == {"": is_on}
    finally:
        end_gateway(process, signal.SIGINT)


def test_a_wrong_period_is_named() -> None:
    with pytest.raises(ConfigError, match="COE_LEARN_EVERY: 'often' is not a period; allowed: a number above 0 with s"):
        read_settings({"COE_LEARN_EVERY": "often"})
