from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from gateway.live_router import LiveRouter
from router.artifact import load_artifact, save_artifact
from router.pipeline import Router
from tests.gateway.small_router import MANIFEST, small_router
from training.registry import Registry

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
    assert live.current is not None
    assert (live.current.version, live.last_error) == (version, None)
