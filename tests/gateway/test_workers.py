"""`coe serve --workers N`: real processes that share a port, a log and what a gateway promises as one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.chaos_fleet import EXPERT, GatewayProcess, serving, write_config
from coe.base.errors import ConfigError
from coe.cli import command_line
from coe.decision_log.database import Database
from coe.decision_log.doctor_commands import drain_all, examine
from coe.fleet.router_registry import Registry
from coe.gateway.metrics import SIZE_BYTES, Processes, merged, socket_of, telling
from coe.gateway.worker import share_of
from coe.gateway.workers import check_count
from coe.router.artifact import load_artifact, save_artifact
from coe.router.config import parse_config
from coe.router.live_pointer import Trial
from coe.router.log_config import LogConfig
from tests.gateway.running import config_of
from tests.small_composition import composition_of
from tests.training.trained_folder import NOW, make_trained
from tests.waiting import DEADLINE_S, until

ASKERS = 6


async def samples(gateway: GatewayProcess, client: aiohttp.ClientSession, name: str) -> dict[str, float]:
    """Sum of a metric by process."""
    async with client.get(f"{gateway.url}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
        found: dict[str, float] = {}
        for sample in (each for family in families for each in family.samples if each.name == name):
            found[sample.labels["process"]] = found.get(sample.labels["process"], 0) + sample.value
    return found


class Load:
    """Askers, each request on a connection of its own."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._is_over = False
        self.answered: list[str] = []
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(ASKERS)]

    async def _ask(self, number: int) -> None:
        count = 0
        while not self._is_over:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as client:
                count += 1
                found = await self._gateway.ask(
                    client, "polly", is_stream=count % 2 == 0, request_id=f"{number}-{count}"
                )
                if found is not None:
                    self.answered.append(found)

    async def more(self, count: int) -> None:
        """Returns after so many more answers."""
        wanted = len(self.answered) + count
        await until(lambda: len(self.answered) >= wanted, f"{count} more answers")

    async def end(self) -> list[str]:
        """The decision ids of all answers."""
        self._is_over = True
        await asyncio.gather(*self._tasks)
        return self.answered


DRAINING = "gateway: {drain_s: 300}\n"


def make_gateway(folder: Path, config: Path) -> GatewayProcess:
    return GatewayProcess(config, folder / "data", {}, folder / "gateway.log", workers=2)


@asynccontextmanager
async def all_serving(gateway: GatewayProcess) -> AsyncIterator[aiohttp.ClientSession]:
    """A client, once every process of the gateway serves."""
    async with serving(gateway) as client:
        await until(lambda: gateway.has_started_workers, "all processes")
        yield client


@dataclass
class Shared:
    """The gateway of the tests that follow: to start one for each would take most of their time."""

    folder: Path
    gateway: GatewayProcess
    answered: list[str]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("workers")
    make_trained(folder, experts=(EXPERT, "right"))
    config = folder / "experts.yaml"
    sections = "retrieval: {encoder: {kind: hashing}, experts: {}}\nlog: {durability: sync}\n"
    config.write_text(config.read_text() + sections + DRAINING)
    gateway = make_gateway(folder, config)
    yield Shared(folder, gateway, [])
    gateway.kill()


@pytest.fixture
async def client(shared: Shared) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the shared gateway, once all of it serves."""
    if not shared.gateway.is_running:
        shared.gateway.start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as opened:
        await shared.gateway.wait_until_it_serves(opened)
        await until(lambda: shared.gateway.has_started_workers, "all processes")
        yield opened


async def test_metrics_add_up_and_each_worker_knows_the_others_decisions(
    shared: Shared, client: aiohttp.ClientSession
) -> None:
    gateway = shared.gateway
    before, load = await samples(gateway, client, "coe_requests_total"), Load(gateway)
    await load.more(80)
    answered = await load.end()
    shared.answered += answered

    async def counted() -> dict[str, float] | None:
        counts = await samples(gateway, client, "coe_requests_total")
        return counts if sum(counts.values()) - sum(before.values()) == len(answered) else None

    counts = await until(counted, "a count of every answer")
    assert counts.keys() == {"worker-1", "worker-2"}
    assert min(counts.values()) > 0
    for _ in range(10):
        async with aiohttp.ClientSession() as alone:
            said = await gateway.ask(alone, "polly", is_stream=False, request_id="r")
        async with aiohttp.ClientSession() as alone, alone.get(f"{gateway.url}/v1/decisions/{said}") as receipt:
            assert receipt.status == 200
        thumb = {"decision_id": said, "kind": "thumb", "value": 1}
        async with aiohttp.ClientSession() as alone, alone.post(f"{gateway.url}/v1/feedback", json=thumb) as kept:
            assert kept.status == 202
    async with client.get(f"{gateway.url}/v1/decisions/dec-none") as answer:
        assert answer.status == 404


async def test_every_worker_serves_the_same_vector_stores(shared: Shared, client: aiohttp.ClientSession) -> None:
    gateway = shared.gateway
    text = "the tallest mountain is Everest\n" * 5000  # of several pieces

    async def call(method: str, path: str, status: int = 200, **body: Any) -> Any:
        async with (
            aiohttp.ClientSession() as alone,
            alone.request(method, f"{gateway.url}/v1/{path}", **body) as answer,
        ):
            assert answer.status == status, await answer.text()
            return await (answer.read() if path.endswith("content") else answer.json())

    store = (await call("POST", "vector_stores", json={"name": "hills"}))["id"]
    for number in range(6):  # each on a connection of its own
        form = aiohttp.FormData({"purpose": "assistants"})
        form.add_field("file", text, filename=f"hill-{number}.txt")
        file = (await call("POST", "files", data=form))["id"]
        assert (await call("GET", f"files/{file}/content")).decode() == text
        assert (await call("POST", f"vector_stores/{store}/files", json={"file_id": file}))["id"] == file
        assert [each["id"] for each in (await call("GET", "vector_stores"))["data"]] == [store]
        refused = await call("POST", "vector_stores", 400, data=b"{")
        assert refused["error"]["type"] == "invalid_request_error"
        await call("GET", "files/none?a=%2F&b=c", 404)

    async def found() -> set[str]:
        """Files of the best chunks, as whichever worker gets the connection finds them."""
        asked = {"query": "mountain", "max_num_results": 50}
        data = (await call("POST", f"vector_stores/{store}/search", json=asked))["data"]
        return {each["filename"] for each in data}

    async def is_found_everywhere() -> bool:
        return all([await found() == {"last.txt"} for _ in range(12)])

    files = (await call("GET", f"vector_stores/{store}/files"))["data"]
    for each in files:
        await call("DELETE", f"vector_stores/{store}/files/{each['id']}")
    await call("POST", f"vector_stores/{store}/texts", json={"texts": [{"text": "a mountain", "filename": "last.txt"}]})
    assert await is_found_everywhere(), "a worker lags behind what another has acknowledged"


async def test_routers_and_canaries_are_the_same_on_every_worker(shared: Shared, client: aiohttp.ClientSession) -> None:
    gateway, registry = shared.gateway, Registry(shared.folder / "data" / "routers")
    first = load_artifact(registry.folders()[0])
    fields = first.manifest.model_dump(mode="json", exclude={"version", "weights_sha256"})
    old, new = (
        first.manifest.version,
        save_artifact(registry.root, fields | {"data_fingerprints": {"copy": "1"}}, first.arrays).manifest.version,
    )

    async def version_of(session: str) -> str:
        body = {"model": "auto", "messages": [{"role": "user", "content": "what is the tallest mountain?"}]}
        async with (
            aiohttp.ClientSession() as alone,
            alone.post(f"{gateway.url}/v1/chat/completions", json=body, headers={"x-session-id": session}) as answer,
        ):
            assert answer.status == 200
            return str(answer.headers["x-coe-router-version"])

    async def versions(session: str) -> set[str]:
        """Those of one conversation on several connections, so on both workers."""
        return {await version_of(session) for _ in range(6)}

    assert await versions("s") == {old}
    registry.try_out(Trial(version=new, share=0.5, started_at=1000.0))

    async def is_divided() -> bool:
        found = [await versions(f"s{number}") for number in range(12)]
        return all(len(each) == 1 for each in found) and set().union(*found) == {old, new}

    await until(is_divided, "each conversation stays with one of the two")
    registry.promote(new, NOW)

    async def is_promoted() -> bool:
        return await versions("s") == {new}

    await until(is_promoted, "the new one answers")
    served = await samples(gateway, client, "coe_requests_total")
    assert min(served.values()) > 0
    assert served.keys() == {"worker-1", "worker-2"}
    assert (await samples(gateway, client, "coe_trial_withdrawals_total")).keys() == {"log"}


async def test_a_killed_worker_comes_back_under_load(shared: Shared, client: aiohttp.ClientSession) -> None:
    gateway, load = shared.gateway, Load(shared.gateway)
    before = gateway.worker_pids
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    await load.more(60)

    async def is_whole() -> bool:
        up = await samples(gateway, client, "coe_process_up")
        return up == {"worker-1": 1, "worker-2": 1, "log": 1} and len(gateway.worker_pids) == 2

    await until(is_whole, "the killed worker is there again, and what it left is sent")
    assert before[0] not in gateway.worker_pids
    await load.more(60)
    shared.answered += await load.end()


async def test_a_drain_serves_a_second_signal_cuts_it_short_and_the_log_has_every_answer(
    shared: Shared, client: aiohttp.ClientSession
) -> None:
    gateway = shared.gateway
    gateway.send(signal.SIGTERM)

    async def is_unready() -> bool:
        async with client.get(f"{gateway.url}/readyz") as answer:
            return "stopping" in await answer.text()

    for _ in range(4):  # whichever worker answers
        await until(is_unready, "not ready")
    assert await gateway.ask(client, "polly", is_stream=True, request_id="r") is not None
    assert gateway.is_running
    assert await gateway.stop() == 0
    data = shared.folder / "data"
    store = Database(f"sqlite:///{data / 'coe.db'}")
    await drain_all(data, LogConfig(), None, store)
    found = await examine(data, LogConfig(), None, store)
    missing = [each for each in shared.answered if store.get_decision(each) is None]
    store.close()
    assert missing == []
    assert found.is_healthy, found
    assert found.decisions == found.rows > len(shared.answered)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a name short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="coe-", dir="/tmp") as folder:
        yield Path(folder)


async def test_workers_end_with_their_parent_however_it_ends(short_path: Path) -> None:
    config = write_config(short_path)
    config.write_text(config.read_text() + DRAINING)
    gateway = make_gateway(short_path, config)
    async with all_serving(gateway):
        run = short_path / "data" / "run"
        left = list(run.iterdir())
        gateway.kill()
        async with serving(gateway) as client:

            async def answers() -> bool:
                begun = any(folder not in left for folder in run.iterdir())  # an old worker may answer for a moment
                return begun and await gateway.ask(client, "polly", is_stream=False, request_id="r") is not None

            await until(answers, "the port and the data folder are free, and nobody drains for 300 s")
            assert len(left) == 1
            assert await gateway.stop(signal.SIGINT) == 0  # a second signal could reach it when it has ended in order
            assert not left[0].exists()


def test_the_parent_imports_nothing_that_answers_requests() -> None:
    heavy = {"aiohttp", "fastapi", "prometheus_client", "redis", "sqlalchemy", "uvicorn"}
    program = f"import sys, coe.gateway.start; print(*{heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout == "\n"


@pytest.mark.parametrize("count", ["0", "x", "65", "-1", "1.5"])
def test_a_wrong_number_of_workers_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run("serve", ["--workers", count]) == 1
    said = f"coe: COE_WORKERS='{count}' is not a number of workers; allowed: 1 to 64\n"
    assert capsys.readouterr().err == said


def test_limits_are_divided_to_the_last_one() -> None:
    judge = {"expert": "ruby", "share": 0.1}
    entries = {"ruby": {"max_concurrency": 5}}
    config = config_of(sections={"judge": judge}, entries=entries, max_concurrency=10, max_connections=20)
    parts = [share_of(config, 3, number) for number in range(3)]
    for name in ("max_concurrency", "max_connections", "max_bytes_in_flight"):
        assert sum(getattr(part.gateway, name) for part in parts) == getattr(config.gateway, name)
    assert [part.gateway.max_concurrency for part in parts] == [4, 3, 3]
    assert [part.experts["ruby"].max_concurrency for part in parts] == [2, 2, 1]
    assert {part.experts["plain"].max_concurrency for part in parts} == {None}
    budgets = [part.judge for part in parts if part.judge is not None]
    assert sum(each.max_usd_per_day for each in budgets) == pytest.approx(1.0)
    assert share_of(config, 1, 0) == config


def test_more_workers_than_the_limits_divide_among_are_refused() -> None:
    check_count(config_of(max_concurrency=3), 3)
    with pytest.raises(ConfigError, match=r"^COE_WORKERS=4 is too many .*max_concurrency 3, .*; allowed: 1 to 3$"):
        check_count(config_of(max_concurrency=3), 4)
    turns = {"experts": {"ruby": {"engine": "vllm", "model": "m"}}, "residency": {"memory_gb": 76}}
    with pytest.raises(ConfigError, match=r"COE_WORKERS=2: with `residency` one process decides .*; allowed: 1"):
        check_count(parse_config(composition_of(**turns)), 2)
    narrow = config_of(entries={"ruby": {"max_concurrency": 2}})
    for check in (check_count, partial(share_of, number=0)):
        check(narrow, 2)
        with pytest.raises(ConfigError, match=r"^experts.ruby.max_concurrency 2 cannot be .* 3 workers; allowed: 3 or"):
            check(narrow, 3)


def test_merged_metrics_have_each_family_once() -> None:
    one = b'# HELP a A.\n# TYPE a gauge\na 1.0\n# HELP b B.\n# TYPE b gauge\nb{x="# HELP {"} 2.0\n'
    two = b"# HELP a A.\n# TYPE a gauge\na 3.0\n"
    families = list(text_string_to_metric_families(merged({"p": one, "q": two}).decode()))
    found = {family.name: {s.labels["process"]: s.value for s in family.samples} for family in families}
    assert found == {"a": {"p": 1.0, "q": 3.0}, "b": {"p": 2.0}}
    assert families[1].samples[0].labels["x"] == "# HELP {"


async def test_a_process_that_ends_while_it_tells_counts_as_away(short_path: Path) -> None:
    text = b"# HELP a A.\n# TYPE a gauge\na 1.0\n"

    async def ends(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((2 * len(text)).to_bytes(SIZE_BYTES) + text)
        writer.close()

    cut = await asyncio.start_unix_server(ends, socket_of(short_path, "cut"))
    async with cut, telling(socket_of(short_path, "other"), lambda: text):
        found = await Processes(short_path, "own", ("own", "other", "cut", "none")).metrics(text)
    families = {family.name: family for family in text_string_to_metric_families(found.decode())}
    values = {name: {s.labels["process"]: s.value for s in family.samples} for name, family in families.items()}
    assert values == {"coe_process_up": {"own": 1, "other": 1, "cut": 0, "none": 0}, "a": {"own": 1, "other": 1}}
