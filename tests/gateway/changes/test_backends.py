"""Connections that a changed configuration keeps, and those that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from coe.decision_log.database import Database
from coe.decision_log.sink import DecisionLog
from coe.fleet.calls.backend import ChatBackend
from coe.fleet.calls.connect import build_backends
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.hosts.engines import EngineAddresses
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.lifecycle.swap import Swap
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import LiveRouter
from coe.router.config.composition import CoeConfig
from tests.gateway.running import MemoryStore
from tests.gateway.small_router import small_router
from tests.memory_log import MemoryLog
from tests.small_composition import config_of

URL = "http://127.0.0.1:9/v1"
LORA_IDS = {"base": None, "poet": 0, "coder": 1}
ADDRESSES = EngineAddresses(dict.fromkeys(LORA_IDS, (URL,)), dict(LORA_IDS))


def adapted(**more: Any) -> dict[str, dict[str, Any]]:
    return {name: {"engine": "llamacpp", "model": "m.gguf", **more} for name in LORA_IDS}


def backends_of(parts: Parts, swap: Swap, config: CoeConfig) -> dict[str, ChatBackend]:
    return swap._backends(parts, config, {})


def parts_of(config: CoeConfig, backends: dict[str, ChatBackend]) -> Parts:
    live = LiveRouter(Path("no-routers"), lambda folder: small_router(), small_router())
    return Parts(config, ExpertPool(backends), live, cast(DecisionLog, MemoryLog()), cast(Database, MemoryStore()))


def test_an_expert_of_an_embedded_engine_goes_and_comes_back_with_every_adapter_told(tmp_path: Path) -> None:
    hosted = {"engine": "openai", "model": "m", "url": URL}
    started = config_of({**adapted(), "hosted": hosted})
    first = build_backends(started, ADDRESSES.urls, ADDRESSES.lora_ids, {})
    parts = parts_of(started, first)
    swap = Swap(Gateway(parts), tmp_path, started, ADDRESSES, tmp_path)

    without = config_of({**{name: entry for name, entry in adapted().items() if name != "coder"}, "hosted": hosted})
    kept = backends_of(parts, swap, without)
    assert kept == {name: first[name] for name in ("base", "poet", "hosted")}

    back = backends_of(parts_of(without, kept), swap, started)
    assert back["poet"] is first["poet"]
    assert cast(Any, back["coder"])._options == cast(Any, first["coder"])._options
    assert cast(Any, back["coder"])._options.extra_body["lora"] == [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}]


def test_a_backend_is_kept_where_only_what_is_said_of_the_expert_changes(tmp_path: Path) -> None:
    started = config_of(
        {"one": {"engine": "openai", "model": "m", "url": URL}, "other": {"engine": "echo", "model": "e"}}
    )
    first = build_backends(started, {}, {}, {})
    parts = parts_of(started, first)
    swap = Swap(Gateway(parts), tmp_path, started, EngineAddresses(), tmp_path)
    dearer = config_of(
        {
            "one": {"engine": "openai", "model": "m", "url": URL, "price": {"input": 9}, "supports": ["tools", "json"]},
            "other": {"engine": "openai", "model": "e", "url": URL},
        }
    )
    changed = backends_of(parts, swap, dearer)
    assert changed["one"] is first["one"]
    assert changed["other"] is not first["other"]
    moved = config_of({"one": {"engine": "openai", "model": "m", "url": f"{URL}/b"}})
    assert backends_of(parts, swap, moved)["one"] is not first["one"]
