"""Texts that clients send: an expert of theirs gets no secret that another part of experts.yaml names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coe.base.errors import ConfigError
from coe.gateway.changes.in_force import find_start, put_start
from coe.gateway.changes.live_config import LiveConfig
from coe.gateway.settings import Settings
from coe.router.config import parse_config
from tests.small_composition import composition_of

URL = "http://127.0.0.1:9/v1"


async def test_no_expert_gets_the_key_of_an_encoder_through_the_api(tmp_path: Path) -> None:
    expert = {"engine": "openai", "model": "m", "url": URL, "api_key_env": "EXPERT_KEY"}
    encoder = {"kind": "openai", "model": "m", "url": URL, "dim": 2, "api_key_env": "ENCODER_KEY"}
    values = composition_of({"far": expert}, retrieval={"encoder": encoder})
    path = tmp_path / "experts.yaml"
    path.write_text(yaml.safe_dump(values))
    put_start(tmp_path / "data", find_start(path, tmp_path / "data"))
    live = LiveConfig(Settings(config_path=path, data_dir=tmp_path / "data"), parse_config(values), None)
    with pytest.raises(ConfigError, match=r"the variables ENCODER_KEY are named by experts\.yaml only"):
        await live.apply(path.read_text().replace("EXPERT_KEY", "ENCODER_KEY"), "api", dry_run=True)
