"""The certificate in /metrics, /v1/admin/routers and the console: its state, its words, and nothing that was edited."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from coe.fleet.certificate import Certificate, PlanResult, publish
from coe.fleet.expert_fingerprint import expert_fingerprint
from coe.router.types import Metric
from tests.gateway.running import Running, config_of, running
from tests.gateway.small_router import small_router

KEY = b"0" * 32
VALID = 'coe_certificate{state="valid"}'


def certificate(**changes: object) -> Certificate:
    router, entries = small_router(), config_of().experts
    plan = PlanResult(
        floor=0.01,
        plan=router.policy("default").fingerprint,
        gain=Metric.within(-0.004, 0.001, 0.006, 900),
        saving=Metric.within(0.6, 0.7, 0.8, 900),
        odds=31.0,
        is_shown=True,
    )
    values = {
        "statement": "Policy default is at most 1 point worse than <ruby>, and saves 70.0% of the price.",
        "policy": "default",
        "of": "ruby",
        "within": 0.01,
        "router": router.version,
        "experts": {"ruby": expert_fingerprint(entries["ruby"], Path())},
        "data": "0123456789abcdef",
        "n_graded": 900,
        "needed": None,
        "plans": (plan,),
        "since": "2026-01-01T00:00:00+00:00",
        "made_at": "2026-02-01T00:00:00+00:00",
        "until": "2999-01-01T00:00:00+00:00",
        "facts": {"Guaranteed": "At most 1 point", "Rests on": "900 prompts"},
    }
    return Certificate.model_validate(values | changes)


async def metrics(gateway: Running) -> dict[str, float]:
    async with gateway.client.get(f"{gateway.root}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


async def page(gateway: Running) -> str:
    async with gateway.client.get(f"{gateway.root}/console/certificate") as answer:
        assert answer.status == 200
        return await answer.text()


async def test_without_one_there_is_no_state(tmp_path: Path) -> None:
    async with running(routers=tmp_path / "routers") as gateway:
        found = await metrics(gateway)
        assert not any(value for name, value in found.items() if name.startswith("coe_certificate"))
        assert "coe certify --policy NAME" in await page(gateway)


async def test_a_valid_one_is_counted_and_shown(tmp_path: Path) -> None:
    made = certificate().signed(KEY)
    publish(tmp_path, made)
    async with running(routers=tmp_path / "routers") as gateway:
        found = await metrics(gateway)
        assert found[VALID] == 1
        assert sum(value for name, value in found.items() if name.startswith("coe_certificate{")) == 1
        assert found["coe_certificate_until_seconds"] > 3e10
        shown = await page(gateway)
        assert html.escape(made.statement) in shown
        assert "900 prompts" in shown
        async with gateway.client.get(f"{gateway.root}/v1/admin/routers") as answer:
            state = (await answer.json())["certificate"]
        assert (state["state"], state["statement"]) == ("valid", made.statement)


@pytest.mark.parametrize(
    ("changes", "state", "why"),
    [
        ({"until": "2026-03-01T00:00:00+00:00"}, "expired", "it was valid until 2026-03-01"),
        ({"router": "another"}, "another router", "router another was certified"),
        (
            {"policy": "gone"},
            "another plan",
            "policy gone has another plan than the certified one; write the quality_floor",
        ),
        ({"experts": {"ruby": "another"}}, "changed", "expert ruby is not the one that was graded"),
    ],
)
async def test_one_that_no_longer_holds_says_why(tmp_path: Path, changes, state: str, why: str) -> None:
    publish(tmp_path, certificate(**changes).signed(KEY))
    async with running(routers=tmp_path / "routers") as gateway:
        found = await metrics(gateway)
        assert found[VALID] == 0
        assert found[f'coe_certificate{{state="{state}"}}'] == 1
        assert "coe_certificate_until_seconds" not in found
        assert why in await page(gateway)


async def test_an_expert_that_answers_by_another_model_withdraws_it(tmp_path: Path) -> None:
    publish(tmp_path, certificate().signed(KEY))
    async with running(routers=tmp_path / "routers") as gateway:
        gateway.gateway.parts.metrics.model_changed("ruby")
        assert (await metrics(gateway))['coe_certificate{state="changed"}'] == 1
    async with running(routers=tmp_path / "routers") as gateway:  # also after a restart
        assert (await metrics(gateway))['coe_certificate{state="changed"}'] == 1


async def test_what_somebody_wrote_is_not_shown(tmp_path: Path) -> None:
    publish(tmp_path, certificate().signed(KEY).model_copy(update={"statement": "All is free."}))
    async with running(routers=tmp_path / "routers") as gateway:
        assert (await metrics(gateway))['coe_certificate{state="forged"}'] == 1
        shown = await page(gateway)
        assert "All is free." not in shown
        assert "900 prompts" not in shown


async def test_nothing_certified_is_said_in_words(tmp_path: Path) -> None:
    made = certificate()
    nothing = made.model_copy(update={"plans": (made.plans[0].model_copy(update={"is_shown": False}),)})
    publish(tmp_path, nothing.model_copy(update={"statement": "Nothing is certified."}).signed(KEY))
    async with running(routers=tmp_path / "routers") as gateway:
        assert (await metrics(gateway))['coe_certificate{state="nothing certified"}'] == 1
        shown = await page(gateway)
        assert "Nothing is certified." in shown
        assert 'class="good"' not in shown
