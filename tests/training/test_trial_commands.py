"""A router that no gateway could load with the file as it is goes neither live nor on trial."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coe.cli.command_line import run
from coe.fleet.router_registry import Registry
from tests.training.trained_folder import CONFIG, make_trained

CHANGES = {
    "experts": ({"experts": {"new": {"engine": "echo", "model": "m"}}}, "experts.yaml has none of them"),
    "encoder": (
        {"router": {**CONFIG["router"], "encoder": {"kind": "hashing", "dim": 64}}},
        "was trained on encoder hashing",
    ),
    "categories": (
        {"categories": {"facts": "facts", "general": "the rest"}},
        "categories that experts.yaml lacks: sql",
    ),
    "scorer": ({"router": {**CONFIG["router"], "scorer": {"kind": "ridge"}}}, "experts.yaml wants 'ridge'"),
    "budgets": (
        {
            "experts": {"left": {"engine": "echo", "model": "m", "params_b": 7.0}},
            "policies": {"default": {"budgets": {"hosted_params_b": 1.0}}},
        },
        "budget hosted_params_b=1 cannot be met",
    ),
}


def coe(folder: Path, *arguments: str) -> int:
    where = ["--config", str(folder / "experts.yaml"), "--data-dir", str(folder / "data")]
    return run("router", [*arguments, *where])


@pytest.mark.parametrize("command", [["--promote"], ["--share", "0.05"]])
@pytest.mark.parametrize("change", CHANGES)
def test_a_router_that_no_gateway_could_load_stays_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], change: str
) -> None:
    registry = Registry(make_trained(tmp_path) / "data" / "routers")
    before = registry.live()
    values, message = CHANGES[change]
    (tmp_path / "experts.yaml").write_text(yaml.dump({**CONFIG, **values}))
    assert coe(tmp_path, before.version, *command) == 1
    said = capsys.readouterr().err
    assert said.startswith("coe: nothing was changed: gateways could not load that router with ")
    assert message in said
    assert len(said.splitlines()) == 1
    assert registry.live() == before


def test_one_that_they_can_load_goes_live(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = Registry(make_trained(tmp_path) / "data" / "routers").live()
    assert coe(tmp_path, live.version, "--promote") == 0
    assert capsys.readouterr().out == f"router {live.version} is live\n"
