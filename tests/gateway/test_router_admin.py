"""/v1/admin/routers, /v1/experts and /v1/spend over real files and SQLite."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from coe.base.errors import ConfigError
from coe.decision_log.admin_log import AdminLog
from coe.decision_log.database import Database
from coe.fleet.calls.connect import DisabledBackend
from coe.fleet.router_registry import KEPT_ROUNDS, Registry
from coe.fleet.vllm.addresses import claim_vllm, write_vllm
from coe.gateway.http.auth import Auth
from coe.gateway.keys.grants import Grant
from coe.gateway.keys.key_ring import KeyRing
from coe.gateway.keys.key_store import KeyStore
from coe.router.live_pointer import Trial
from coe.router.model_files.artifact import load_artifact, save_artifact
from coe.router.pipeline import Router
from tests.decision_log.test_listing import made
from tests.fleet.test_vllm_actuator import served
from tests.fleet.test_vllm_addresses import engine_record
from tests.gateway.running import Running, echoes, running
from tests.gateway.small_router import MANIFEST, small_router

DATABASES = ("sqlite",)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADMIN = "/v1/admin/routers"


def load(folder: Path) -> Router:
    return small_router(version=load_artifact(folder).manifest.version)


def saved(folder: Path, mass: float) -> str:
    return save_artifact(folder, MANIFEST, {"map.mass": np.full(3, mass, np.float32)}).manifest.version


async def ask(gateway: Running, method: str, path: str, key: str = "") -> tuple[int, dict]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with gateway.client.request(method, gateway.root + path, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_router_is_promoted_and_rolled_back(tmp_path: Path, store: Database) -> None:
    first, second = saved(tmp_path, 1.0), saved(tmp_path, 2.0)
    Registry(tmp_path).promote(first, NOW)
    async with running(routers=tmp_path, load=load, store=store) as gateway:
        status, state = await ask(gateway, "POST", f"{ADMIN}/{second[:8]}/promote")
        assert (status, state["live"]) == (200, second)
        assert {each["version"]: each["role"] for each in state["routers"]} == {first: "", second: "live"}
        _, state = await ask(gateway, "POST", f"{ADMIN}/rollback")
        assert state["live"] == first
        status, refusal = await ask(gateway, "POST", f"{ADMIN}/rollback")
        assert (status, refusal["error"]["code"]) == (400, "invalid_router")
        status, refusal = await ask(gateway, "POST", f"{ADMIN}/ffff/promote")
        assert status == 400
        assert "unknown router version 'ffff'" in refusal["error"]["message"]
    assert [each[2:7] for each in AdminLog(store).actions()] == [
        ("api", "promote", "router", first, second),
        ("api", "rollback", "router", second, first),
    ]


async def test_a_trial_begins_under_terms(tmp_path: Path, store: Database) -> None:
    first, second = saved(tmp_path, 1.0), saved(tmp_path, 2.0)
    Registry(tmp_path).promote(first, NOW)
    async with running(routers=tmp_path, load=load, store=store) as gateway:
        for canary, share in (({"share": 0.2}, 0.2), ({}, 0.05)):
            async with gateway.client.post(f"{gateway.root}{ADMIN}/{second}/try", json={"canary": canary}) as answer:
                trial = (await answer.json())["trial"]
                assert (trial["version"], trial["share"]) == (second, share)
        async with gateway.client.post(f"{gateway.root}{ADMIN}/{second}/try", json={"canary": {"share": 2}}) as answer:
            assert answer.status == 400
            assert "'canary.share': must be at most 0.9" in await answer.text()
        async with gateway.client.post(f"{gateway.root}{ADMIN}/{first}/try", json={"canary": {}}) as answer:
            assert "is live already" in await answer.text()
        assert (await ask(gateway, "POST", f"{ADMIN}/rollback"))[1]["trial"] is None


async def test_a_router_that_the_gateway_cannot_load_stays_where_it_is(tmp_path: Path) -> None:
    first, second = saved(tmp_path, 1.0), saved(tmp_path, 2.0)
    Registry(tmp_path).promote(first, NOW)

    def picky(folder: Path) -> Router:
        if folder.name == second:
            raise ConfigError("it knows none of these experts")
        return load(folder)

    async with running(routers=tmp_path, load=picky) as gateway:
        status, refusal = await ask(gateway, "POST", f"{ADMIN}/{second}/promote")
        assert status == 400
        assert refusal["error"]["message"].startswith("nothing was changed: this gateway could not load that router")
        assert Registry(tmp_path).live().version == first


async def test_a_trial_shows_its_evidence(tmp_path: Path, store: Database) -> None:
    first, second = saved(tmp_path / "routers", 1.0), saved(tmp_path / "routers", 2.0)
    registry, began = Registry(tmp_path / "routers"), time.time() - 60
    registry.promote(first, NOW)
    registry.try_out(Trial(version=second, share=0.5, started_at=began))
    versions = (first, second, second)
    store.write_decisions([made(i, {"router_version": v}, at=began + i) for i, v in enumerate(versions, start=1)])
    async with running(routers=tmp_path / "routers", load=load, store=store) as gateway:
        _, state = await ask(gateway, "GET", ADMIN)
    trial = state["trial"]
    assert trial["answered"] == {"candidate": {"n": 2, "mean": 1}, "live": {"n": 1, "mean": 1}}
    assert trial["log_e"]["failures"] < trial["limit"]


def test_the_registry_keeps_the_last_rounds(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    assert registry.rounds() == []
    for number in range(KEPT_ROUNDS + 2):
        registry.keep_round(NOW, {"candidate": number})
    assert [each["candidate"] for each in registry.rounds()] == list(range(KEPT_ROUNDS + 1, 1, -1))


async def test_experts_have_their_state_and_the_reason_of_a_disabled_one() -> None:
    entries = {"ruby": {"params_b": 7.0, "supports": ["images", "json"]}}
    backends = echoes(plain=DisabledBackend("experts.plain.api_key_env: environment variable KEY is not set"))
    async with running(backends, entries=entries) as gateway:
        _, listed = await ask(gateway, "GET", "/v1/experts")
    by_name = {each["name"]: each for each in listed["data"]}
    assert [by_name[name]["state"] for name in ("ruby", "emerald", "plain")] == ["up", "up", "disabled"]
    assert by_name["plain"]["problem"].endswith("KEY is not set")
    assert (by_name["ruby"]["params_b"], by_name["ruby"]["takes"]) == (7.0, ["images", "json"])


async def test_an_expert_on_vllm_says_whether_its_engine_sleeps(tmp_path: Path) -> None:
    lock = claim_vllm(tmp_path)
    entries = {"ruby": {"engine": "vllm"}, "emerald": {"engine": "vllm", "adapter": "lora"}}
    async with (
        served() as (_, actuator),
        served() as (_, awake),
        running(routers=tmp_path / "routers", entries=entries) as gateway,
    ):
        of_emerald = engine_record("base", awake._urls()["coder"][0], "emerald")
        write_vllm(tmp_path, [engine_record("ruby", actuator._urls()["coder"][0]), of_emerald])
        await actuator.sleep("coder", 1)
        _, listed = await ask(gateway, "GET", "/v1/experts")
        async with gateway.client.get(f"{gateway.root}/console/experts") as answer:
            page = await answer.text()
    lock.release()
    assert {each["name"]: each["residency"] for each in listed["data"]} == {
        "ruby": "sleep_1",
        "emerald": "adapter",
        "plain": None,
    }
    assert "asleep, weights in host memory" in page


async def test_spend_is_added_up_by_key_and_a_team_sees_its_own(tmp_path: Path, store: Database) -> None:
    keys, now = KeyStore(store, "ann@host"), time.time()
    (acme, secret), (other, _) = keys.create("acme", "", Grant()), keys.create("other", "", Grant())
    _, admin = keys.create("ops", "", Grant(is_admin=True))
    spent = [(acme, 0.25, now), (acme, 0.5, now), (other, 2.0, now), (acme, 9.0, now - 31 * 86_400)]
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "kinds": {"cache_read": 6, "cache_write_1h": 1}}
    store.write_decisions(
        [made(i, key_id=key, cost_usd=cost, at=at, usage=usage) for i, (key, cost, at) in enumerate(spent)]
    )
    async with running(store=store, auth=Auth(ring=KeyRing(keys))) as gateway:
        _, own = await ask(gateway, "GET", "/v1/spend", secret)
        _, everything = await ask(gateway, "GET", "/v1/spend", admin)
        _, older = await ask(gateway, "GET", "/v1/spend?since=0", secret)
        refused, _ = await ask(gateway, "GET", "/v1/spend?until=inf", secret)
        unknown, said = await ask(gateway, "GET", "/v1/spend?untill=1", secret)
        assert (unknown, "untill" in str(said)) == (400, True)
        assert refused == 400
        status, _ = await ask(gateway, "GET", ADMIN, secret)
    mine = {
        "key_id": acme,
        "team": "acme",
        "requests": 2,
        "prompt_tokens": 20,
        "cached_tokens": 12,
        "cache_write_tokens": 2,
        "completion_tokens": 6,
        "cost_usd": 0.75,
    }
    assert own["data"] == [mine]
    assert [(each["team"], each["cost_usd"]) for each in everything["data"]] == [("other", 2.0), ("acme", 0.75)]
    assert older["data"][0]["cost_usd"] == 9.75
    assert status == 403
