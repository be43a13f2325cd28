"""The garbage collector of a gateway that has started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.gateway.running import config_of
from tests.gateway.served import environment_of

PROGRAM = """
import asyncio, gc, time
from coe.gateway.lifecycle.composition import running_composition
from coe.fleet.processes.program_log import LogReporter
from coe.gateway.settings import environment_settings
from coe.router.config.composition import load_config

async def main():
    settings = environment_settings()
    settings.data_dir.mkdir()
    config = load_config(settings.config_path)
    async with running_composition(settings, config, LogReporter()):
        print(gc.get_freeze_count(), len(gc.get_objects()), gc.get_threshold()[0], gc.isenabled())

asyncio.run(main())
"""


def test_what_a_gateway_started_with_is_searched_no_more(tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(yaml.safe_dump(config_of().model_dump(mode="json", exclude_none=True)))
    environment = environment_of(config, tmp_path / "data")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    frozen, searched, threshold, is_enabled = done.stdout.split()
    assert int(frozen) > 50_000
    assert int(searched) < int(frozen) / 10
    assert (int(threshold), is_enabled) == (20_000, "True")
