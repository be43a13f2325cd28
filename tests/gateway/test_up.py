"""The order of a start, with experts that only echo; tests/e2e has the real ones."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
from functools import partial
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import uvloop
import yaml

from coe.base.errors import ArtifactError, ConfigError, EngineError
from coe.cli.terminal import Terminal
from coe.decision_log.connections import opened_database
from coe.fleet.processes.program_log import LogReporter
from coe.fleet.router_registry import change_pointer
from coe.gateway.changes.in_force import Start
from coe.gateway.commands.run import settings_of
from coe.gateway.keys.grants import Grant
from coe.gateway.keys.key_store import KeyStore
from coe.gateway.lifecycle.start import agreed_config, noted_start, require_keys, run_serve
from coe.gateway.lifecycle.up import (
    UpView,
    collect_words,
    run_coe,
    run_up,
    with_own_key,
)
from coe.gateway.settings import Settings, on_folder, read_settings
from coe.router.live_pointer import LivePointer
from coe.router.model_files.artifact import save_artifact
from tests.gateway.running import config_of
from tests.gateway.small_router import MANIFEST
from tests.waiting import DEADLINE_S, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    values = yaml.safe_load((ROOT / "experts.yaml").read_text())
    values["experts"] = {"parrot": {"engine": "echo", "model": "echo"}, "crow": {"engine": "echo", "model": "echo"}}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return read_settings(
        {
            "COE_CONFIG": str(tmp_path / "experts.yaml"),
            "COE_DATA_DIR": str(tmp_path / "data"),
            "COE_PORT": "0",
            "REDIS_URL": redis_url,
        }
    )


async def test_serve_without_a_router_answers_by_name_and_ends_in_order(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = asyncio.create_task(run_serve(settings, LogReporter()))
    await until(lambda: "gateway at " in caplog.text or run.done(), "the gateway's address")
    await until(lambda: "not ready: no router is loaded" in caplog.text or run.done(), "the warning")
    address = re.search(r"gateway at (http://\S+)", caplog.text)
    async with aiohttp.ClientSession() as session:
        async with session.get(address.group(1).removesuffix("/v1") + "/readyz") as answer:
            assert answer.status == 503
        body = {"model": "parrot", "messages": [{"role": "user", "content": "polly"}]}
        async with session.post(f"{address.group(1)}/chat/completions", json=body) as answer:
            assert "polly" in await answer.text()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(run, DEADLINE_S)
    assert not (settings.data_dir / "routers").exists()


@pytest.mark.parametrize("runs", [run_serve, partial(run_up, once=True)])
async def test_a_pin_that_the_live_router_cannot_keep_is_told_before_anything_starts(settings: Settings, runs) -> None:
    made = save_artifact(settings.data_dir / "routers", {**MANIFEST, "experts": ("crow",)}, {"map.mass": np.ones(3)})
    change_pointer(settings.data_dir / "routers", lambda _: LivePointer(version=made.manifest.version, promoted_at=""))
    values = yaml.safe_load(settings.config_path.read_text())
    values["policies"] = {"default": {"pins": {"general": "parrot"}}}
    settings.config_path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"policies\.default\.pins\.general: router .* has not measured 'parrot'"):
        await runs(settings, UpView(Terminal(file=io.StringIO())))
    assert [each.name for each in settings.data_dir.iterdir()] == ["routers"]


async def test_categories_that_the_live_router_does_not_know_are_a_warning(settings: Settings) -> None:
    made = save_artifact(settings.data_dir / "routers", {**MANIFEST, "categories": ("code",)}, {"map.mass": np.ones(3)})
    change_pointer(settings.data_dir / "routers", lambda _: LivePointer(version=made.manifest.version, promoted_at=""))
    _, (warning,) = agreed_config(settings)
    assert "does not know arithmetic, extraction, " in warning


async def test_a_taken_port_is_told_before_anything_starts(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: .*--port"):
            await run_up(settings.model_copy(update={"port": port}), UpView(Terminal(file=io.StringIO())), once=True)
    assert not settings.data_dir.exists()


async def test_a_data_folder_that_cannot_be_made_is_one_clear_error(settings: Settings) -> None:
    settings.data_dir.write_text("a file")
    with pytest.raises(ConfigError, match=r"^COE_DATA_DIR: .*data cannot be made \(File exists\)$"):
        await run_serve(settings, LogReporter())


async def test_a_router_that_cannot_be_used_is_told_with_the_way_out(settings: Settings) -> None:
    routers = settings.data_dir / "routers"
    routers.mkdir(parents=True)
    (routers / "live.json").write_text(json.dumps({"version": "abc", "promoted_at": "", "history": []}))
    with pytest.raises(ArtifactError, match=r"the live router cannot be used: .*abc.*`coe train`"):
        await run_up(settings, UpView(Terminal(file=io.StringIO())), once=True)


async def test_a_signal_while_it_measures_ends_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()

    async def slow(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("coe.gateway.lifecycle.up.run_coe", slow)
    run = asyncio.create_task(run_up(settings, UpView(Terminal(file=out)), once=True))
    await until(lambda: "coe eval collect" in out.getvalue() or run.done(), "the first measurement")
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(EngineError, match="stopped before the gateway was ready"):
        await asyncio.wait_for(run, DEADLINE_S)


async def test_what_check_refuses_and_a_missing_extra_end_a_start_before_anything_is_asked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load(settings.config_path.read_text())
    values["experts"]["parrot"] = {
        "engine": "openai",
        "model": "parrot",
        "url": "http://127.0.0.1:9/v1",
        "api_key_env": "A_KEY_OF_NOBODY",
    }
    settings.config_path.write_text(yaml.safe_dump(values))
    monkeypatch.setattr("coe.base.extras.find_spec", lambda name: None if name == "sklearn" else name)
    with pytest.raises(ConfigError) as refused:
        await run_up(settings, UpView(Terminal(file=io.StringIO())), once=True)
    extra, key = refused.value.problems
    assert extra.startswith("`coe up` needs the 'train' extra: pip install 'composition-of-experts[train]'")
    assert "experts.parrot.api_key_env: environment variable A_KEY_OF_NOBODY is not set" in key
    assert not settings.data_dir.exists()


def test_a_command_that_fails_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match=r"`coe log( nonsense)?` failed with exit status \d+; its message is above"):
        uvloop.run(run_coe(["log", "nonsense"], os.environ))  # as `coe up` does
    assert "unknown command 'log nonsense'" in capfd.readouterr().err


def test_the_commands_of_a_first_start_are_complete() -> None:
    url, settings = "http://127.0.0.1:8000/v1", Settings()
    assert collect_words(url, ("a", "b"), settings, Path("few")) == [
        *("eval", "collect", "--base-url", url, "--experts", "a,b", "--experts-file", "experts.yaml"),
        *("--out", "data/outcomes/probes", "--probes", "few"),
    ]
    assert "--probes" not in collect_words(url, ("a",), settings, None)
    assert on_folder("train", settings) == ["train", "--config", "experts.yaml", "--data-dir", "data"]


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COE_PORT", "9000")
    monkeypatch.setenv("COE_DATA_DIR", "elsewhere")
    chosen = settings_of(Path("experts.yaml"), tmp_path, None, 0)
    assert (chosen.port, chosen.data_dir, chosen.host) == (0, tmp_path, "127.0.0.1")
    assert chosen.database_url.get_secret_value() == f"sqlite:///{tmp_path / 'coe.db'}"
    assert settings_of(Path("experts.yaml"), Path("data"), None, None).port == 9000
    assert chosen.learn_every == "1h"
    monkeypatch.setenv("COE_LEARN_EVERY", "1d")
    assert settings_of(Path("experts.yaml"), tmp_path, None, 0).learn_every == "1d"
    assert settings_of(Path("experts.yaml"), tmp_path, None, 0, learn=False).learn_every == "off"
    exposed = settings_of(Path("experts.yaml"), tmp_path, "0.0.0.0", None)
    with pytest.raises(ConfigError, match="0\\.0\\.0\\.0"):
        require_keys(exposed, config_of())
    with opened_database(tmp_path) as database:
        KeyStore(database).create("acme", "", Grant())
    require_keys(exposed, config_of())
    for settings in (exposed, chosen):
        own = with_own_key(settings, config_of())
        assert len(own.api_keys) == 1, "coe up asks its own queries, too"
        assert with_own_key(own, config_of()) == own


async def test_a_start_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    exposed = settings_of(Path("experts.yaml"), tmp_path / "data", "0.0.0.0", 0)
    with pytest.raises(ConfigError, match="reachable from other machines"):
        await noted_start(exposed, Start(config_of(), "", ""))
    assert not exposed.data_dir.exists()
