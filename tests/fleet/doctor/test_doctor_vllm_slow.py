"""`coe doctor gpu` on vLLM's CPU build, which does all that it asks and frees no memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from coe.fleet.doctor.report import examine
from coe.router.config.composition import VllmConfig
from tests.vllm_build import ENVIRONMENT, vllm_interpreter


@pytest.mark.slow
async def test_every_check_holds_on_the_cpu_build(tmp_path: Path) -> None:
    args = {"dtype": "bfloat16", "enforce-eager": True, "max-num-seqs": 16}
    config = VllmConfig.model_validate({"python": vllm_interpreter(), "args": args, "env": ENVIRONMENT})
    findings = await examine(config, tmp_path, dict(os.environ), lambda _: None)
    assert {each.name: each.verdict for each in findings} == {
        "engines start": "proved",
        "sleep 1, sleep 2 and wake keep every answer": "proved",
        "an engine that is killed while it sleeps comes back": "proved",
        "an engine that is killed while it wakes comes back": "proved",
        "an engine that is killed while it answers comes back": "proved",
        "engines take turns for requests by name": "proved",
        "a gateway starts over engines of which most sleep": "proved",
        "throughput": "measured",
    }, findings
    found = json.loads((tmp_path / "doctor" / "gpu.json").read_text())
    assert found["figures"]["times"].keys() == {"cold_start_s", "sleep_1_s", "wake_1_s", "sleep_2_s", "wake_2_s"}
    assert found["engines"].keys() == {"tiny-0", "tiny-1"}
