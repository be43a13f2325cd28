"""Versions in a running gateway: promotion, canary, and the watch that takes a worse router back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, update
from sqlmodel import col

from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord, TerminalState
from coe.decision_log.e_process import Arm
from coe.decision_log.feedback_types import Feedback, FeedbackKind
from coe.decision_log.read import read_router_events
from coe.decision_log.router_versions import RouterVersions, TrialEvidence, first_rewards, past_rewards
from coe.decision_log.tables.log import DecisionRow, FeedbackRow
from coe.fleet.calls.backend import ChatBackend
from coe.fleet.router_registry import Registry, change_pointer, withdraw
from coe.gateway.routers.live_router import POLL_EVERY_S, LiveRouter
from coe.gateway.routers.trial_watch import TrialFinding, TrialWatch, find, reason_to_withdraw
from coe.router.build import load_router
from coe.router.capabilities import explicit_decision
from coe.router.config.composition import load_config
from coe.router.live_pointer import LivePointer, Trial, read_pointer
from coe.router.model_files.artifact import load_artifact, save_artifact
from coe.router.pipeline import Router
from coe.router.types import CategoryProbs, FloatArray, Query, QueryFacts
from tests.gateway.running import Running, echoes, running
from tests.gateway.small_router import MANIFEST, ColourClassifier, small_router
from tests.logged import answered
from tests.training.trained_folder import make_trained
from tests.waiting import until

DATABASES = ("sqlite",)

OLD, NEW = "a" * 16, "b" * 16


def load(folder: Path) -> Router:
    return small_router(version=folder.name)


def promote(folder: Path, version: str, trial: Trial | None = None) -> LivePointer:
    return change_pointer(
        folder, lambda _: LivePointer(version=version, promoted_at="2026-01-01T00:00:00+00:00", trial=trial)
    )


def canary(share: float = 0.5, **fields: float) -> Trial:
    return Trial(version=NEW, share=share, started_at=1000.0, **fields)


async def version_of(gateway: Running, session: str) -> str:
    async with gateway.chat("red", headers={"x-session-id": session}) as answer:
        assert answer.status == 200
        return str(answer.headers["x-coe-router-version"])


async def test_two_gateways_converge_on_a_version_within_two_seconds(tmp_path: Path) -> None:
    assert POLL_EVERY_S <= 2.0
    promote(tmp_path, OLD)
    async with (
        running(has_router=False, routers=tmp_path, load=load) as one,
        running(has_router=False, routers=tmp_path, load=load) as two,
    ):
        for version, trial in ((NEW, None), (OLD, canary(0.5)), (OLD, None)):
            promote(tmp_path, version, trial)
            wanted = {(version, trial)}
            await until(
                lambda wanted=wanted: {(g.parts.live.current.version, g.parts.live.trial) for g in (one, two)} == wanted
            )
            if trial is None:
                assert {await version_of(gateway, "s") for gateway in (one, two)} == {version}


async def test_a_conversation_stays_with_one_router_on_every_gateway(tmp_path: Path) -> None:
    promote(tmp_path, OLD, canary(0.3))
    async with (
        running(has_router=False, routers=tmp_path, load=load) as one,
        running(has_router=False, routers=tmp_path, load=load) as two,
    ):
        sessions = [f"session-{i}" for i in range(60)]
        first = [await version_of(one, session) for session in sessions]
        assert first == [await version_of(two, session) for session in sessions]
        assert first == [await version_of(one, session) for session in sessions]
        assert set(first) == {OLD, NEW}
        record = await one.record(0)
        assert record.decision.router_version == first[0]


def test_the_share_is_kept() -> None:
    trial = canary(0.05)
    taken = sum(trial.takes(f"unit {i}") for i in range(20_000))
    assert 850 <= taken <= 1150  # five standard deviations
    again = trial.model_copy(update={"started_at": 2000.0})
    assert any(trial.takes(f"unit {i}") != again.takes(f"unit {i}") for i in range(1000))


class BrokenClassifier(ColourClassifier):
    def predict_proba(self, embeddings: FloatArray) -> CategoryProbs:
        raise ValueError("operands could not be broadcast together")


def load_broken(folder: Path) -> Router:
    router = small_router(version=folder.name)
    return router if folder.name == OLD else replace(router, classifier=BrokenClassifier())


async def test_a_candidate_that_cannot_decide_hurts_nobody_and_is_withdrawn(tmp_path: Path) -> None:
    promote(tmp_path, OLD, canary(0.9))
    async with running(has_router=False, routers=tmp_path, load=load_broken) as gateway:
        live = gateway.parts.live
        for i in range(20):
            assert await version_of(gateway, f"s{i}") == OLD
        await until(lambda: live.trial is None)
        assert live.withdrawals == 1
    pointer = read_pointer(tmp_path)
    assert pointer.trial is None
    assert "could not decide" in pointer.withdrawn[0].reason


def fill(
    store: Database, n: int, means: Mapping[str, float], *, failures: Mapping[str, float], at: float, seed: int
) -> None:
    """n decisions, a tenth of them the candidate's where `means` has it, all rated by somebody else each."""
    rng = np.random.default_rng(seed)
    records, said = [], []
    decision = small_router().decide(Query("q", "red"), rng=rng)
    for i in range(n):
        version = NEW if NEW in means and rng.random() < 0.1 else OLD
        is_failed = rng.random() < failures.get(version, 0.0)
        name = f"dec-{at}-{i}"
        records.append(
            answered(
                name,
                i,
                decision.model_copy(update={"router_version": version}),
                at=at + i,
                state=TerminalState.UPSTREAM_ERROR if is_failed else TerminalState.ANSWERED,
                served_expert=None,
                status=502 if is_failed else 200,
                session_id=name,
            )
        )
        value = float(rng.random() < means[version])
        said.append({"decision_id": name, "kind": "thumb", "value": value, "at": at + i, "key_id": ""})
    store.write_decisions(records)
    with store.transaction("write feedback") as connection:
        connection.execute(store.insert(FeedbackRow), said)


async def judged(folder: Path, store: Database, trial: Trial) -> tuple[LiveRouter, TrialWatch]:
    promote(folder, OLD, trial)
    live = LiveRouter(folder, load)
    await live.refresh()
    watch = TrialWatch(folder, RouterVersions(store))
    await watch.look()
    await live.refresh()
    return live, watch


@pytest.mark.parametrize(
    ("means", "failures", "reason"),
    [
        ({OLD: 0.8, NEW: 0.8}, {}, None),
        ({OLD: 0.6, NEW: 0.9}, {}, None),
        ({OLD: 0.9, NEW: 0.3}, {}, "its mean reward is 0.3"),
        ({OLD: 0.8, NEW: 0.8}, {NEW: 0.3}, "of its decisions failed, 0.0%"),
        ({OLD: 0.8, NEW: 0.8}, {OLD: 0.2, NEW: 0.2}, None),
    ],
)
async def test_the_watch_takes_back_what_is_worse_and_nothing_else(
    tmp_path: Path, store: Database, means: Mapping[str, float], failures: Mapping[str, float], reason: str | None
) -> None:
    fill(store, 300, {OLD: means[OLD]}, failures=failures, at=100.0, seed=1)
    fill(store, 1000, means, failures=failures, at=1000.0, seed=2)
    live, watch = await judged(tmp_path, store, canary(0.1))
    pointer = read_pointer(tmp_path)
    assert pointer.version == OLD
    if reason is None:
        assert (live.trial, watch.withdrawals, pointer.withdrawn) == (canary(0.1), 0, ())
    else:
        assert (live.trial, watch.withdrawals) == (None, 1)
        assert reason in pointer.withdrawn[0].reason
        assert events_in(store)[-1][1] == "withdrawn"


@pytest.mark.parametrize("alpha", [0.05, 0.3])
@pytest.mark.parametrize("question", ["reward", "failures"])
def test_each_question_of_a_canary_has_half_of_alpha(question: str, alpha: float) -> None:
    """Evidence of 1 / alpha is not enough for either, of 2 / alpha it is: together they err with chance alpha."""
    evidence = TrialEvidence(*[Arm(10, 5)] * 6)
    trial = canary(0.1, alpha=alpha)

    def found(log_e: float) -> TrialFinding:
        return TrialFinding(**({"reward": -1.0, "failures": -1.0} | {question: log_e}))

    assert reason_to_withdraw(evidence, found(math.log(1.9 / alpha)), trial) is None
    assert reason_to_withdraw(evidence, found(math.log(2.1 / alpha)), trial) is not None


def test_a_canarys_rewards_and_failures_are_compared_within_their_own_margins() -> None:
    """One margin each: 0.2 of reward, 0.01 of failures. Half as good is worse than both, 0.1 only than the second."""
    some, most, half = Arm(2000, 1700), Arm(2000, 1900), Arm(2000, 1000)
    trial = canary(0.1, margin=0.2, error_margin=0.01)
    same = {"past_reward": most, "past_success": most, "live_reward": most, "live_success": most}
    for reward, success, signs in ((some, some, (-1, 1)), (half, most, (1, -1)), (most, most, (-1, -1))):
        found = find(TrialEvidence(candidate_reward=reward, candidate_success=success, **same), trial)
        assert (np.sign([found.reward, found.failures]) == signs).all(), found


async def test_many_ratings_of_one_person_count_once(tmp_path: Path, store: Database) -> None:
    fill(store, 400, {OLD: 0.9}, failures={}, at=1000.0, seed=3)
    decision = small_router(version=NEW).decide(Query("q", "red"), rng=np.random.default_rng(0))
    angry = [
        answered(f"angry-{i}", i, decision, replica="two", at=1500.0 + i, session_id="one person") for i in range(30)
    ]
    store.write_decisions(angry)
    for record in angry:
        store.put_feedback(Feedback(decision_id=record.decision_id, kind=FeedbackKind.THUMB, value=0, at=record.at))
    evidence = RouterVersions(store).evidence(OLD, canary(0.1))
    assert (evidence.candidate_reward.n, evidence.candidate_reward.total) == (1, 0)
    live, _ = await judged(tmp_path, store, canary(0.1))
    assert live.trial is not None


@pytest.mark.parametrize("kind", FeedbackKind)
def test_a_trial_is_judged_by_feedback_of_every_kind(store: Database, kind: FeedbackKind) -> None:
    for at in (500.0, 1500.0):  # before the trial began, and in it
        fill(store, 20, {OLD: 0.5}, failures={}, at=at, seed=5)
    with store.transaction("write feedback") as connection:
        connection.execute(update(FeedbackRow).values(kind=kind.value))
    evidence = RouterVersions(store).evidence(OLD, canary(0.1))
    assert (evidence.past_reward.n, evidence.live_reward.n) == (20, 20)


def test_for_rewards_only_records_with_feedback_are_looked_at(tmp_path: Path) -> None:
    store, looked = Database(f"sqlite:///{tmp_path / 'coe.db'}"), []
    fill(store, 50, {OLD: 0.9}, failures={}, at=1500.0, seed=3)
    with store.transaction("leave one") as connection:
        connection.execute(delete(FeedbackRow).where(col(FeedbackRow.id) > 1))
        driver = connection.connection.driver_connection
        driver.create_function("like", 3, lambda *given: looked.append(given) or False)
        assert first_rewards(connection, (OLD,), 0.0)[OLD].n == 1
        assert past_rewards(connection, OLD, 0.0, 1e9).n == 1
    store.close()
    assert len(looked) <= 3, "once for each, or for each place of the question that names it"


@pytest.mark.parametrize("version", [OLD, NEW])
def test_answers_of_an_expert_that_the_client_named_are_no_evidence(store: Database, version: str) -> None:
    """Neither its rewards nor its failures, before a trial and in it. A text that looks like the mark of such a row
    changes nothing."""
    fill(store, 100, {OLD: 0.5, NEW: 0.5}, failures={}, at=500.0, seed=6)
    fill(store, 100, {OLD: 0.5, NEW: 0.5}, failures={}, at=1500.0, seed=7)
    versions = RouterVersions(store)
    before = versions.evidence(OLD, canary(0.1))
    named = explicit_decision(["ruby"], QueryFacts(), {}, version=version)
    chosen = small_router(version=version).decide(Query("q", "red"), rng=np.random.default_rng(0))
    rows = [
        answered(
            f"named-{at}-{i}",
            i,
            named,
            replica=f"{at}",
            at=at + i,
            requested_model="ruby",
            state=TerminalState.UPSTREAM_ERROR if i % 2 else TerminalState.ANSWERED,
            session_id=f"named-{at}-{i}",
        )
        for at in (700.0, 1700.0)
        for i in range(40)
    ]
    store.write_decisions(rows)
    for row in rows:
        store.put_feedback(Feedback(decision_id=row.decision_id, kind=FeedbackKind.THUMB, value=0, at=row.at + 1))
    assert RouterVersions(store).evidence(OLD, canary(0.1)) == before
    quoting = rows[0].model_copy(
        update={"decision_id": "d", "seq": 99, "at": 1800.0, "decision": chosen, "text": '"reason":"explicit"'}
    )
    store.write_decisions([quoting])
    after = RouterVersions(store).evidence(OLD, canary(0.1))
    grown = after.live_success if version == OLD else after.candidate_success
    was = before.live_success if version == OLD else before.candidate_success
    assert grown.n == was.n + 1


def test_no_record_of_a_category_that_named_answers_do_not_have_is_read(store: Database) -> None:
    fill(store, 10, {OLD: 0.5, NEW: 0.5}, failures={OLD: 0.5}, at=1500.0, seed=7)
    before = RouterVersions(store).evidence(OLD, canary(0.1))
    with store.transaction("spoil") as connection:
        connection.execute(update(DecisionRow).values(record='{"reason":"explicit"}'))
    assert RouterVersions(store).evidence(OLD, canary(0.1)) == before


def put(store: Database, name: str, at: float, session: str, **changes: object) -> None:
    """An answer of the live router, which chose ruby, with changes to its record."""
    decision = small_router(version=OLD).decide(Query("q", "red"), rng=np.random.default_rng(0))
    fields = {
        "decision_id": name, "request_id": "r", "replica": "one", "seq": int(at), "at": at, "requested_model": "auto",
        "state": TerminalState.ANSWERED, "decision": decision, "served_expert": "ruby", "status": 200,
        "latency_ms": 1.0, "session_id": session,
    }  # fmt: skip
    store.write_decisions([DecisionRecord.model_validate(fields | changes)])


def say(store: Database, name: str, value: float, at: float) -> None:
    store.put_feedback(Feedback(decision_id=name, kind=FeedbackKind.THUMB, value=value, at=at))


def test_of_a_conversation_the_first_reward_counts(store: Database) -> None:
    for number, (value, at) in enumerate([(1.0, 1300.0), (0.0, 1100.0), (1.0, 1200.0)]):
        put(store, f"d{number}", 1001.0 + number, "one person")
        say(store, f"d{number}", value, at)
    evidence = RouterVersions(store).evidence(OLD, canary(0.1))
    assert (evidence.live_reward.n, evidence.live_reward.total) == (1, 0)


def test_the_past_ends_where_the_trial_begins(store: Database) -> None:
    """Of two answers from before, one was rated before the trial began and the other after."""
    for name, value, at in (("early", 1.0, 900.0), ("late", 0.0, 1100.0)):
        put(store, name, 800.0, name)
        say(store, name, value, at)
    past = RouterVersions(store).evidence(OLD, canary(0.1)).past_reward
    assert (past.n, past.total) == (1, 1.0)


def events_in(store: Database) -> list[tuple[str, str]]:
    with store.transaction("read") as connection:
        return [(each["version"], each["event"]) for each in read_router_events(connection, 0.0, float("inf"))]


async def test_sql_keeps_what_happened_once(tmp_path: Path, store: Database) -> None:
    version = save_artifact(tmp_path, MANIFEST, {"map.mass": np.ones(3, np.float32)}).manifest.version
    promote(tmp_path, version, canary())
    versions = RouterVersions(store)
    for _ in range(2):  # two gateways
        await TrialWatch(tmp_path, versions).look()
    assert events_in(store) == [(NEW, "canary"), (version, "promoted")]


def test_only_the_trial_that_was_judged_is_withdrawn(tmp_path: Path) -> None:
    promote(tmp_path, OLD, canary(0.1))
    later = canary(0.2).model_copy(update={"started_at": 2000.0})
    assert not withdraw(tmp_path, later, "worse")
    assert withdraw(tmp_path, canary(0.1), "worse")
    assert not withdraw(tmp_path, canary(0.1), "worse")


async def swap_under_load(
    folder: Path, versions: Sequence[str], load: Callable[[Path], Router], backends: Mapping[str, ChatBackend]
) -> None:
    """Every answer is 200 and names one version, in header and log alike, while routers come and go."""
    promote(folder, versions[-1])
    async with running(backends, has_router=False, routers=folder, load=load) as gateway:
        is_over = False
        headers: dict[str, str] = {}

        async def client(number: int) -> None:
            while not is_over:
                async with gateway.chat("green", headers={"x-session-id": f"{number}"}) as answer:
                    assert answer.status == 200
                    await answer.read()
                    headers[answer.headers["x-coe-decision-id"]] = answer.headers["x-coe-router-version"]

        clients = [asyncio.create_task(client(number)) for number in range(8)]
        live = gateway.parts.live
        for i, version in enumerate(versions):
            on_trial = canary(0.5).model_copy(update={"version": versions[i - 1]}) if i % 3 == 0 else None
            promote(folder, version, on_trial)
            await live.refresh()
            assert live.current.version == version
            seen = len(headers)
            await until(lambda seen=seen: len(headers) > seen + 16)
        is_over = True
        await asyncio.gather(*clients)
        assert live.refusals == 0
        assert gateway.parts.metrics.faults._value.get() == 0
        await until(lambda: len(gateway.log.records) == len(headers))
        logged = {r.decision_id: r.decision.router_version for r in gateway.log.records if r.decision}
        assert logged == headers
        assert set(headers.values()) == set(versions)


async def test_check_38_hot_swaps_under_load_lose_nothing(tmp_path: Path) -> None:
    await swap_under_load(tmp_path, [f"{i:016d}" for i in range(12)], load, echoes())


@pytest.mark.slow
async def test_check_38_a_hundred_hot_swaps_of_real_artifacts_under_load_lose_nothing(tmp_path: Path) -> None:
    """Four trained routers, read from their files again at every swap but those to the trial's own."""
    registry = Registry(make_trained(tmp_path, experts=("ruby", "emerald")) / "data" / "routers")
    first = load_artifact(registry.folders()[0])
    versions = [first.manifest.version]
    for i in range(3):
        fields = first.manifest.model_dump(mode="json", exclude={"version", "weights_sha256"})
        fields["data_fingerprints"] = {"copy": str(i)}
        versions.append(save_artifact(registry.root, fields, first.arrays).manifest.version)
    config = load_config(tmp_path / "experts.yaml")
    await swap_under_load(registry.root, versions * 25, partial(load_router, config), echoes())
