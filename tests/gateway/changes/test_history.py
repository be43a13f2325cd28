"""Copies of configurations: which one is in force, and until when."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from base.errors import ConfigError
from coe import command_line
from gateway.changes.history import KEPT, History
from router.live_pointer import LIVE_FILE
from tests.training.trained_folder import CONFIG, make_trained


def text_of(price: float) -> str:
    entries = {"left": {"engine": "echo", "model": "left", "price_in_per_m_usd": price}}
    return yaml.dump({**CONFIG, "experts": entries})


def price_at_start(history: History, path: Path) -> float:
    """The price of the configuration that a gateway started now would serve with, whose start is noted."""
    start = history.start(path)
    history.started(start)
    return start.config.experts["left"].price_in_per_m_usd


def test_a_rollback_holds_over_restarts_until_the_file_changes(tmp_path: Path) -> None:
    path, history = tmp_path / "experts.yaml", History(tmp_path / "data")
    path.write_text(text_of(1))
    assert price_at_start(history, path) == 1
    path.write_text(text_of(2))
    history.apply(text_of(2), text_of(2), "me")
    assert price_at_start(history, path) == 2
    history.rollback(history.current(), path.read_text(), "me")
    assert price_at_start(history, path) == 1
    assert price_at_start(history, path) == 1, "the file is as it was at the rollback"
    path.write_text(text_of(3))
    assert price_at_start(history, path) == 3


def test_a_file_that_was_never_applied_is_taken_at_the_next_start(tmp_path: Path) -> None:
    path, history = tmp_path / "experts.yaml", History(tmp_path / "data")
    for price in (1, 2, 3):
        path.write_text(text_of(price))
        assert price_at_start(history, path) == price
    found = history.current()
    assert (found.number, found.started, found.before) == (3, 3, (2, 1))
    assert found.change == 0, "other gateways that run do not follow a start"


def test_what_came_by_the_api_holds_over_restarts(tmp_path: Path) -> None:
    path, history = tmp_path / "experts.yaml", History(tmp_path / "data")
    path.write_text(text_of(1))
    price_at_start(history, path)
    history.apply(text_of(7), path.read_text(), "api")
    assert price_at_start(history, path) == 7
    assert path.read_text() == text_of(1)


def test_every_change_is_numbered_and_some_are_kept_to_go_back_to(tmp_path: Path) -> None:
    path, history = tmp_path / "experts.yaml", History(tmp_path / "data")
    path.write_text(text_of(0))
    price_at_start(history, path)
    for price in range(1, KEPT + 3):
        found = history.apply(text_of(price), text_of(price), "me")
        assert found.change == price
    assert len(found.before) == KEPT
    again = history.apply(text_of(price), text_of(price), "me")
    assert (again.number, again.before) == (found.number, found.before), "the same text makes no copy"
    assert again.change == found.change + 1, "gateways that refused it try again"
    back = history.rollback(again, text_of(price), "me")
    assert history.config(back.number).experts["left"].price_in_per_m_usd == price - 1


def test_faults_say_what_to_do(tmp_path: Path) -> None:
    path, history = tmp_path / "experts.yaml", History(tmp_path / "data")
    path.write_text(text_of(1))
    with pytest.raises(ConfigError, match="no gateway has started with this data folder"):
        history.current()
    price_at_start(history, path)
    found = history.current()
    with pytest.raises(ConfigError, match="nothing to go back to"):
        history.rollback(found, path.read_text(), "me")
    history.apply(text_of(2), path.read_text(), "me")
    with pytest.raises(ConfigError, match="another configuration was put in force just now"):
        history.rollback(found, path.read_text(), "me")
    (history.root / LIVE_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"without it experts.yaml is in force: delete it"):
        history.start(path)


def test_the_command_refuses_what_the_live_router_cannot_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A budget that no map of what was measured keeps is known before any gateway sees it."""
    make_trained(tmp_path)
    path, data = tmp_path / "experts.yaml", tmp_path / "data"
    history, good = History(data), path.read_text()
    options = ["--config", str(path), "--data-dir", str(data)]
    assert command_line.run("config apply", options) == 1
    assert "no gateway has started with this data folder" in capsys.readouterr().err
    history.started(history.start(path))
    for bad, said in (
        (good.replace("left", "west").replace("right", "east"), "experts.yaml has none of them"),
        (f"{good}policies: {{default: {{pins: {{sql: new}}}}}}\n", "policies.default.pins.sql: unknown expert 'new'"),
        ("categories: [", "experts.yaml"),
    ):
        path.write_text(bad)
        for command in ("config plan", "config apply"):
            assert command_line.run(command, options) == 1
            assert said in capsys.readouterr().err
    assert history.current().number == 1
    path.write_text(f"{good}aliases: {{gpt: auto}}\n")
    assert command_line.run("config apply", options) == 0
    assert "aliases.gpt: added" in capsys.readouterr().out
    assert command_line.run("config rollback", options) == 0
    said = capsys.readouterr().out
    assert "aliases.gpt: removed" in said
    assert "experts.yaml is as it was: put it right too" in said
    assert history.config(history.current().number).aliases == {}
    assert command_line.run("config rollback", options) == 1
    assert "nothing to go back to" in capsys.readouterr().err
