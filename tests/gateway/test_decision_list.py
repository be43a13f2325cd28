"""GET /v1/decisions: pages and refusals. tests/decision_log/test_listing.py has the filters."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from coe.decision_log.database import Database
from tests.decision_log.test_listing import made
from tests.gateway.running import Running, running

KEYS = ("the first key of two", "the second key of two")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    """Five decisions of nobody's key."""
    database = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    database.write_decisions([made(seq, key_id=None, text="hello") for seq in range(5)])
    yield database
    database.close()


@pytest.fixture
async def gateway(store: Database) -> AsyncIterator[Running]:
    async with running(store=store) as opened:
        yield opened


async def get(gateway: Running, query: str, key: str | None = None) -> tuple[int, bytes]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with gateway.client.get(f"{gateway.root}/v1/decisions?{query}", headers=headers) as answer:
        return answer.status, await answer.read()


async def test_pages_follow_each_other_to_the_end(gateway: Running) -> None:
    seen, after = [], ""
    for _ in range(3):
        status, body = await get(gateway, f"limit=2&since=1001{after}")
        page = json.loads(body)
        assert (status, page["object"]) == (200, "list")
        seen += [line["decision_id"] for line in page["data"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == ["r1-4", "r1-3", "r1-2", "r1-1"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("state=lost", "'state': unknown value; allowed: "),
        ("limit=501", "'limit': must be at most 500"),
        ("after=yesterday", "'after' is 'yesterday'; allowed: 'next' of the page before"),
        ("after=nan_x", "'after' is 'nan_x'; allowed: 'next' of the page before"),
        ("since=nan", "'since': must be a finite number"),
        ("colour=red", "'colour': is not a field that is known here"),
    ],
)
async def test_a_wrong_query_is_refused_by_name(gateway: Running, query: str, words: str) -> None:
    status, body = await get(gateway, query)
    assert status == 400
    assert words in json.loads(body)["error"]["message"]


async def test_a_key_lists_what_its_team_made(tmp_path: Path) -> None:
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    async with running(keys=KEYS, store=store) as gateway:
        for key in KEYS:
            async with gateway.chat(headers={"authorization": f"Bearer {key}"}) as answer:
                assert answer.status == 200
        store.write_decisions([await gateway.record(0), await gateway.record(1)])
        lists = [json.loads((await get(gateway, "", key))[1])["data"] for key in KEYS]
        assert [[line["decision_id"] for line in each] for each in lists] == [
            [record.decision_id] for record in gateway.log.records
        ]
        assert (await get(gateway, ""))[0] == 401
    store.close()
