"""NUL is refused where a text becomes a column or an id, which Postgres could not hold; elsewhere it is a character."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.retrieval.serving import Serving, serving

NUL = "a\0b"
BODIES: tuple[tuple[str, dict[str, object], str], ...] = (
    ("/vector_stores", {"name": NUL}, "name"),
    ("/vector_stores", {"description": NUL}, "description"),
    ("/vector_stores", {"file_ids": [NUL]}, "file_ids[0]"),
    ("{store}", {"name": NUL}, "name"),
    ("{store}/files", {"file_id": NUL}, "file_id"),
    ("{store}/file_batches", {"file_ids": ["file-x", NUL]}, "file_ids[1]"),
    ("{store}/file_batches", {"files": [{"file_id": NUL}]}, "files[0].file_id"),
    ("/feedback", {"decision_id": NUL, "kind": "thumb", "value": 1}, "decision_id"),
)
ADDRESSES = (
    "/vector_stores/a%00b",
    "{store}/files/a%00b",
    "{store}/file_batches/a%00b",
    "/vector_stores?after=a%00b",
    "/files/a%00b",
    "/files?purpose=a%00b",
    "/decisions/a%00b",
)


async def check(running: Serving) -> None:
    _, made, _ = await running.post("/vector_stores", {"metadata": {"k": NUL}})
    store = f"/vector_stores/{made['id']}"
    for path, body, field in BODIES:
        status, answer, _ = await running.post(path.replace("{store}", store), body)
        assert (status, answer["error"]["param"]) == (400, field), answer
        assert answer["error"]["message"] == f"'{field}': holds a NUL character; allowed: any other"
    for path in ADDRESSES:
        async with running.http.get(running.url + path.replace("{store}", store)) as response:
            assert response.status == 400, path
            assert "holds a NUL character" in (await response.json())["error"]["message"]
    item = {"text": f"the {NUL} animal" + " that purrs" * 20, "filename": f"{NUL}.txt", "attributes": {"k": NUL}}
    status, answer, _ = await running.post(f"{store}/texts", {"texts": [item]})
    assert (status, answer["data"][0]["status"]) == (200, "completed"), answer
    condition = {"type": "eq", "key": "k", "value": NUL}
    status, answer, _ = await running.search(made["id"], f"{NUL} animal", filters=condition)
    assert (status, answer["data"][0]["attributes"]) == (200, {"k": NUL})
    async with running.http.get(running.url + store) as response:
        assert (await response.json())["metadata"] == {"k": NUL}


async def test_nul_is_refused_in_names_and_ids(running: Serving) -> None:
    await check(running)


async def test_nul_is_refused_on_postgres_as_on_sqlite(tmp_path: Path, postgres_url: str) -> None:
    async with serving(tmp_path, database_url=postgres_url) as running:
        await check(running)
