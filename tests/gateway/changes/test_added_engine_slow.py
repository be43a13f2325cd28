"""A new adapter on the embedded engine's base, served without a restart, on the real weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest

from coe.fleet.calls.backend import BackendRequest
from coe.fleet.calls.connect import build_backends
from coe.fleet.hosts.engines import EngineAddresses
from coe.fleet.processes.process import ProcessState
from coe.gateway.changes.difference import restart_problems
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.lifecycle.swap import Swap
from coe.router.config.composition import CoeConfig, load_config
from tests.gateway.changes.test_backends import URL, parts_of

ROOT = Path(__file__).parents[3]
QUESTION = "Is the sentiment positive or negative? I love this phone."

pytestmark = pytest.mark.slow


def composition(*experts: str) -> CoeConfig:
    config = load_config(ROOT / "experts.yaml")
    return config.model_copy(update={"experts": {name: config.experts[name] for name in experts}})


async def test_an_adapter_gets_an_engine_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    started, wanted = composition("generalist", "calculator"), composition("generalist", "calculator", "labeler")
    shipped, adapter = ROOT / "examples" / "smollm2" / "adapters", tmp_path / "labeler"
    shutil.copytree(shipped / "labeler", adapter)
    wanted.experts["labeler"] = wanted.experts["labeler"].model_copy(update={"adapter": str(adapter)})
    assert restart_problems(started, wanted, ()) == []
    ids: dict[str, int | None] = {"generalist": None, "calculator": 0}
    addresses = EngineAddresses(dict.fromkeys(ids, (URL,)), ids)
    parts = parts_of(started, build_backends(started, addresses.urls, addresses.lora_ids, {}))
    swap = Swap(Gateway(parts), tmp_path, started, addresses, ROOT)
    try:
        await swap._start_added(wanted)
        backend = swap._backends(parts, wanted, {})["labeler"]
        body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 6, "temperature": 0}
        response = await backend.send(BackendRequest(body))
        raw = b"".join([chunk async for chunk in response.chunks])
        assert response.status == 200, raw
        assert "positive" in orjson.loads(raw)["choices"][0]["message"]["content"].lower()
        (engine,) = swap._added.values()
        await swap._start_added(wanted)
        assert tuple(swap._added.values()) == (engine,)
        await backend.aclose()
        shutil.copytree(shipped / "calculator", adapter, dirs_exist_ok=True)  # trained anew, into the same folder
        await swap._start_added(wanted)
        (other,) = swap._added.values()
        assert other.digest != engine.digest
    finally:
        await swap.aclose()
    ended = [status.state for each in (engine, other) for status, _ in each.fleet.statuses]
    assert ended == [ProcessState.STOPPED] * 2
