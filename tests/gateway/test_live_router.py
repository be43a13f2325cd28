from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from coe.fleet.router_registry import Registry
from coe.gateway import live_router
from coe.gateway.live_router import LiveRouter
from coe.router.artifact import load_artifact, save_artifact
from coe.router.pipeline import Router
from tests.gateway.running import config_of, running
from tests.gateway.small_router import MANIFEST, small_router
from tests.waiting import DEADLINE_S, until

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


class SlowLoad:
    """Loads routers, each once it is let through."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.loads = 0

    def __call__(self, folder: Path) -> Router:
        assert self.gate.wait(DEADLINE_S)
        self.loads += 1
        return load(folder)


def promoted(folder: Path, mass: float, *, age_s: float) -> str:
    """A router that was made live so long ago."""
    version = save_artifact(folder, MANIFEST, {"map.mass": np.full(3, mass, np.float32)}).manifest.version
    Registry(folder).promote(version, NOW)
    at = time.time() - age_s
    os.utime(folder / "live.json", (at, at))
    return version


async def test_a_request_waits_for_a_router_that_was_promoted_a_while_ago(tmp_path: Path) -> None:
    loading = SlowLoad()
    live = LiveRouter(tmp_path, loading)
    loading.gate.set()
    first = promoted(tmp_path, 1.0, age_s=60)
    await live.refresh()
    loading.gate.clear()
    second = promoted(tmp_path, 2.0, age_s=1.5)
    asked = asyncio.create_task(live.for_request())
    await until(lambda: live._catching_up is not None)
    assert not asked.done()
    assert live.current.version == first
    loading.gate.set()
    for serving in (await asked, await live.for_request()):
        assert serving.live.version == second
    assert loading.loads == 2
    await live.aclose()


async def test_right_after_a_promotion_the_router_of_before_decides_while_the_new_one_loads(tmp_path: Path) -> None:
    loading = SlowLoad()
    live = LiveRouter(tmp_path, loading)
    loading.gate.set()
    first = promoted(tmp_path, 1.0, age_s=60)
    await live.refresh()
    loading.gate.clear()
    second = promoted(tmp_path, 2.0, age_s=-60)  # as seen from a clock that is ahead: as new as can be
    serving = await live.for_request()
    assert serving.live.version == first
    loading.gate.set()
    await until(lambda: live.current is not None and live.current.version == second)
    await live.aclose()


async def test_a_load_without_end_holds_no_request_for_ever(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(live_router, "MAX_WAIT_S", 0.05)
    loading = SlowLoad()
    live = LiveRouter(tmp_path, loading, small_router(version="before"))
    promoted(tmp_path, 1.0, age_s=60)
    serving = await live.for_request()
    assert serving.live.version == "before"
    loading.gate.set()
    await live.aclose()


@pytest.mark.parametrize("text", [b"{", b"{}", None])
async def test_a_pointer_that_says_nothing_keeps_no_request_waiting(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "live.json").write_bytes(text)
        os.utime(tmp_path / "live.json", (1.0, 1.0))
    live = LiveRouter(tmp_path, load, small_router(version="before"))
    for _ in range(2):
        live._next_look_s = 0.0
        assert (await live.for_request()).live is live.current
    await until(lambda: live._catching_up is None or live._catching_up.done())
    assert live._seen_ns == live._written_ns()


async def test_answers_come_from_the_new_router_although_the_poll_is_late(tmp_path: Path) -> None:
    first = promoted(tmp_path, 1.0, age_s=60)
    async with running(routers=tmp_path, load=load, has_router=False) as gateway:
        gateway.parts.live._polling.cancel()
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-router-version"] == first
        second = promoted(tmp_path, 2.0, age_s=2)
        gateway.parts.live._next_look_s = 0.0
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-router-version"] == second


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
