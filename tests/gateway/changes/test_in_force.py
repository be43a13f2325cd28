"""Which configuration is in force, and until when."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coe.base.errors import ConfigError
from coe.cli import command_line
from coe.gateway.changes.in_force import CONFIG_FOLDER, current, find_start, parsed, put, put_start, text_before
from coe.router.live_pointer import LIVE_FILE
from tests.training.trained_folder import CONFIG, make_trained


def text_of(price: float) -> str:
    entries = {"left": {"engine": "echo", "model": "left", "price": {"input": price}}}
    return yaml.dump({**CONFIG, "experts": entries})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "experts.yaml"
    path.write_text(text_of(1))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def price_at_start(path: Path, data: Path) -> float:
    """The price of the configuration that a gateway started now would serve with, whose start is noted."""
    start = find_start(path, data)
    put_start(data, start)
    return start.config.experts["left"].price["input"]


def test_a_step_back_holds_over_restarts_until_the_file_changes(path: Path, data: Path) -> None:
    assert price_at_start(path, data) == 1
    path.write_text(text_of(2))
    put(data, text_of(2), text_of(2), "me")
    assert price_at_start(path, data) == 2
    put(data, text_before(current(data)), path.read_text(), "me")
    assert price_at_start(path, data) == 1
    assert price_at_start(path, data) == 1, "the file is as it was at the step back"
    assert text_before(current(data)) == text_of(2), "one more step leads forth again"
    path.write_text(text_of(3))
    assert price_at_start(path, data) == 3


def test_a_file_that_was_never_applied_is_taken_at_the_next_start(path: Path, data: Path) -> None:
    for price in (1, 2, 3):
        path.write_text(text_of(price))
        assert price_at_start(path, data) == price
    found = current(data)
    assert (found.text, found.started, found.before) == (text_of(3), text_of(3), text_of(2))
    assert found.number == 1, "other gateways that run do not follow a start"


def test_what_is_in_force_already_can_be_applied_again(path: Path, data: Path) -> None:
    price_at_start(path, data)
    found = put(data, text_of(2), text_of(2), "me")
    again = put(data, text_of(2), text_of(2), "you")
    assert again == found.model_copy(update={"number": 3}), "gateways that refused it try again"
    assert again.started == text_of(1)


def test_faults_say_what_to_do(path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="no gateway has started with this data folder"):
        current(data)
    price_at_start(path, data)
    with pytest.raises(ConfigError, match="nothing to go back to"):
        text_before(current(data))
    (data / CONFIG_FOLDER / LIVE_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"without it experts.yaml is in force: delete it"):
        find_start(path, data)


def test_the_command_refuses_what_the_live_router_cannot_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A budget that no map of what was measured keeps is known before any gateway sees it."""
    make_trained(tmp_path)
    path, data = tmp_path / "experts.yaml", tmp_path / "data"
    good = path.read_text()
    options = ["--config", str(path), "--data-dir", str(data)]
    assert command_line.run("config apply", options) == 1
    assert "no gateway has started with this data folder" in capsys.readouterr().err
    put_start(data, find_start(path, data))
    for bad, said in (
        (good.replace("left", "west").replace("right", "east"), "experts.yaml has none of them"),
        (f"{good}policies: {{default: {{pins: {{sql: new}}}}}}\n", "policies.default.pins.sql: unknown expert 'new'"),
        ("categories: [", "experts.yaml"),
    ):
        path.write_text(bad)
        for more in ([], ["--dry-run"]):
            assert command_line.run("config apply", [*options, *more]) == 1
            assert said in capsys.readouterr().err
    path.write_text(f"{good}aliases: {{gpt: auto}}\n")
    assert command_line.run("config apply", [*options, "--dry-run"]) == 0
    assert "aliases.gpt: added" in capsys.readouterr().out
    assert current(data).number == 1
    assert command_line.run("config apply", [*options, "--back"]) == 1
    assert "nothing to go back to" in capsys.readouterr().err
    assert command_line.run("config apply", options) == 0
    assert "aliases.gpt: added" in capsys.readouterr().out
    assert command_line.run("config apply", [*options, "--back"]) == 0
    said = capsys.readouterr().out
    assert "aliases.gpt: removed" in said
    assert "experts.yaml is as it was: put it right too" in said
    assert parsed(current(data).text, path).aliases == {}
