from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from coe.fleet.router_registry import Registry
from coe.gateway.routers import live_router
from coe.gateway.routers.live_router import LiveRouter
from coe.router.model_files.artifact import load_artifact, save_artifact
from coe.router.pipeline import Router
from tests.gateway.running import config_of
from tests.gateway.small_router import MANIFEST, small_router

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def load(folder: Path) -> Router:
    return small_router(version=load_artifact(folder).manifest.version)


async def test_a_refused_router_is_loaded_once_it_is_written_anew_and_promoted_again(tmp_path: Path) -> None:
    arrays = {"map.mass": np.ones(3, np.float32)}
    version = save_artifact(tmp_path, MANIFEST, arrays).manifest.version
    first = Registry(tmp_path).promote(version, NOW)
    (tmp_path / version / "weights.safetensors").write_bytes(b"")
    live = LiveRouter(tmp_path, load)
    await live.refresh()
    assert (live.current, live.refusals) == (None, 1)
    save_artifact(tmp_path, MANIFEST, arrays)
    assert Registry(tmp_path).promote(version, NOW) == first
    await live.refresh()
    assert (live.current.version, live.last_error) == (version, None)


@pytest.mark.parametrize("text", [b"{", b"{}", None])
async def test_a_pointer_that_says_nothing_leaves_the_router_of_before(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "live.json").write_bytes(text)
    live = LiveRouter(tmp_path, load, small_router(version="before"))
    await live.refresh()
    assert live.current.version == "before"


def test_routers_of_one_file_share_an_encoder(tmp_path: Path, monkeypatch) -> None:
    built = []
    monkeypatch.setattr(live_router, "build_encoder", lambda config: built.append(config) or object())
    monkeypatch.setattr(live_router, "load_router", lambda config, folder, encoder: (folder, encoder))
    loader = live_router.router_loader(config_of())
    assert loader(tmp_path)[1] is loader(tmp_path / "other")[1]
    assert len(built) == 1


@pytest.mark.parametrize("named", ["..", "../other", "a/b", "", "a\n"])
@pytest.mark.parametrize("key", ["version", "trial", "history"])
async def test_a_pointer_whose_version_is_a_path_is_refused(tmp_path: Path, key: str, named: str) -> None:
    trial = {"version": named, "started_at": 1.0}
    said = {"version": "abc", "promoted_at": "", key: {"trial": trial, "history": [named]}.get(key, named)}
    (tmp_path / "live.json").write_text(json.dumps(said))
    live = LiveRouter(tmp_path, load, small_router(version="before"))
    await live.refresh()
    assert (live.current.version, live.loads, live.refusals) == ("before", 0, 0)
    assert "is not a live pointer" in live.last_error
