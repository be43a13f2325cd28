"""The console in a real browser: scripts/console.py has the steps. Skipped where Chromium is not installed."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from coe.decision_log.database import Database
from coe.fleet.router_registry import Registry
from coe.router.model_files.artifact import load_artifact, save_artifact
from coe.router.pipeline import Router
from tests.clients.test_clients import CLIENTS, KEY, SCRIPTS
from tests.gateway.running import running
from tests.gateway.small_router import MANIFEST, small_router
from tests.gateway.test_router_admin import NOW

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def load(folder: Path) -> Router:
    return small_router(version=load_artifact(folder).manifest.version)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
async def test_the_console_works_in_a_browser(tmp_path: Path) -> None:
    assert CLIENTS.exists(), f"{CLIENTS} is missing: `make environments` installs it"
    routers, store = tmp_path / "routers", Database(f"sqlite:///{tmp_path / 'coe.db'}")
    first, second = (
        save_artifact(routers, MANIFEST, {"map.mass": np.full(3, mass, np.float32)}).manifest.version
        for mass in (1.0, 2.0)
    )
    Registry(routers).promote(first, NOW)
    async with running(routers=routers, load=load, store=store, keys=[KEY]) as gateway:
        done = await asyncio.create_subprocess_exec(
            str(CLIENTS),
            str(SCRIPTS / "console.py"),
            *(gateway.root, KEY, str(CHROMIUM), second),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await done.communicate()
    store.close()
    assert done.returncode == 0, said.decode()
