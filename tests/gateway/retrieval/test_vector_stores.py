"""Files and vector stores over HTTP: with OpenAI's client, and what it cannot show."""

from __future__ import annotations

import io
from pathlib import Path

import openai
import pytest

from coe.decision_log.decision_record import DecisionKind
from coe.retrieval.service import VectorStores
from coe.retrieval.stores.chunk_table import ChunkTable
from coe.retrieval.stores.store_records import Addition
from tests.gateway import running as plain
from tests.gateway.retrieval.serving import (
    ANIMAL_QUERIES,
    BOTH_QUERIES,
    EXPERTS,
    PHRASE_QUERIES,
    Serving,
    retrieval_config,
    serving,
)
from tests.retrieval.stores.pdf import pdf_of

TEXTS = {
    "cats.txt": "The cat is the animal that purrs when it is content.",
    "dogs.md": "# Dogs\n\nA dog is an animal that barks at night.",
    "printer.txt": "Error code E1234: the printer has no paper left.",
    "tax.txt": "The tax office opens at nine in the morning.",
    "zebra.txt": "A riddle on stripes: a zebra is black with white.",
}

TOO_MUCH_OVERLAP = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}


async def test_openai_client_creates_fills_searches_and_deletes(running: Serving) -> None:
    async with running.openai() as client:
        store = await client.vector_stores.create(name="manuals", metadata={"team": "support"})
        assert store.status == "completed"
        assert store.metadata == {"team": "support"}
        for name, text in TEXTS.items():
            uploaded = await client.files.create(file=(name, text.encode()), purpose="assistants")
            attached = await client.vector_stores.files.create_and_poll(
                uploaded.id, vector_store_id=store.id, attributes={"kind": name.partition(".")[0]}, poll_interval_ms=20
            )
            assert attached.status == "completed", attached.last_error
        page = await client.vector_stores.search(store.id, query="error code E1234", max_num_results=2)
        assert page.data[0].filename == "printer.txt"
        assert page.data[0].content[0].text == TEXTS["printer.txt"]
        assert page.data[0].attributes == {"kind": "printer"}
        filtered = await client.vector_stores.search(
            store.id, query="error code E1234", filters={"type": "in", "key": "kind", "value": ["cats", "dogs"]}
        )
        assert {each.filename for each in filtered.data} <= {"cats.txt", "dogs.md"}
        assert (await client.vector_stores.retrieve(store.id)).file_counts.completed == 5
        changed = await client.vector_stores.update(store.id, name="manuals 2")
        assert changed.name == "manuals 2"
        assert [each.id async for each in client.vector_stores.list()] == [store.id]
        assert (await client.vector_stores.delete(store.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.vector_stores.retrieve(store.id)
        assert len([each async for each in client.files.list(limit=2)]) == 5


SEARCHES = (
    (ANIMAL_QUERIES[0], "animals", "pilots", "cats.txt"),
    ("error code E1234", "words", "pilots", "printer.txt"),
    ("when does the tax office open", "base", "unprepared", "tax.txt"),
    (BOTH_QUERIES[0], "animals, words", "pilots", "zebra.txt"),
)


async def test_each_search_names_the_expert_and_why(running: Serving) -> None:
    store_id = await running.store_of(TEXTS)
    for query, expert, reason, top in SEARCHES:
        status, answer, headers = await running.search(store_id, query, max_num_results=2)
        assert status == 200, answer
        assert answer["data"][0]["filename"] == top
        assert headers["x-coe-expert"] == expert
        assert headers["x-coe-reason"] == answer["decisions"][0]["reason"] == reason
        assert headers["x-coe-decision-id"] == answer["decisions"][0]["decision_id"]
        record = running.log.records[-1]
        assert record.kind is DecisionKind.SEARCH
        assert record.retrieval.store_id == store_id
        assert list(record.retrieval.documents) == [each["document_id"] for each in answer["data"]]


async def test_no_row_says_answered_when_the_answer_could_not_be_made(
    running: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id = await running.store_of({"a.txt": "x y z"})
    monkeypatch.setattr("coe.gateway.endpoints.search.search_view", lambda *_: {"data": "\ud800"})
    status, answer, _ = await running.search(store_id, ANIMAL_QUERIES[0])
    assert (status, answer["error"]["code"]) == (500, "gateway_fault")
    assert running.log.records == []


async def test_a_learned_fusion_finds_what_the_words_side_by_side_mean(running: Serving) -> None:
    apart = "storm and storm and storm, and then, much later, a warning; a warning, and again a warning"
    texts = {"apart.txt": apart, "beside.txt": "the ferry does not sail after a storm warning of the harbour office"}
    store_id = await running.store_of(TEXTS | texts)
    _, answer, _ = await running.search(store_id, PHRASE_QUERIES[0], max_num_results=9)
    assert answer["data"][0]["filename"] == "beside.txt"
    assert all(0 <= each["score"] <= 1 for each in answer["data"])
    assert answer["decisions"][0]["why"].endswith("(+0.500 nDCG@10 predicted), fused as the queries of weather taught")
    trace = running.log.records[-1].retrieval
    assert (trace.evidence, trace.learned_on) == ((0.0, 0.8, -0.1), "weather")
    _, ranked, _ = await running.post(
        "/rerank", {"query": PHRASE_QUERIES[0], "documents": [apart, texts["beside.txt"]]}
    )
    assert [each["index"] for each in ranked["results"]] == [1, 0]
    assert ranked["why"] == answer["decisions"][0]["why"]
    _, filtered, _ = await running.search(
        store_id, PHRASE_QUERIES[0], filters={"type": "eq", "key": "none", "value": "there"}
    )
    assert filtered["data"] == []


async def test_several_queries_are_each_routed_and_their_results_joined(running: Serving) -> None:
    store_id = await running.store_of(TEXTS)
    _, answer, headers = await running.search(store_id, [ANIMAL_QUERIES[0], "error code E1234"], rewrite_query=True)
    assert [each["expert"] for each in answer["decisions"]] == ["animals", "words"]
    assert headers["x-coe-expert"] == "animals, words"
    assert {"cats.txt", "printer.txt"} <= {each["filename"] for each in answer["data"][:3]}
    assert answer["ignored"] == ["rewrite_query"]
    assert answer["search_query"] == [ANIMAL_QUERIES[0], "error code E1234"]
    assert len(running.log.records) == 2


async def test_an_expert_with_documents_of_its_own_searches_its_own_index(running: Serving) -> None:
    store_id = await running.store_of(TEXTS)
    _, answer, headers = await running.search(store_id, TEXTS["dogs.md"], model="other")
    assert headers["x-coe-expert"] == "other"
    assert answer["data"][0]["filename"] == "dogs.md"
    assert answer["data"][0]["score"] > 0.95


async def test_a_key_sees_its_own_stores_and_files_only(tmp_path: Path) -> None:
    mine, other = "my-very-secret-key-1", "another-secret-key-2"
    async with serving(tmp_path, keys=[mine, other]) as running:
        async with running.openai(mine) as client, running.openai(other) as stranger:
            file = await client.files.create(file=("a.txt", b"the animal purrs"), purpose="assistants")
            store = await client.vector_stores.create(file_ids=[file.id])
            theirs = await stranger.vector_stores.create(name="theirs")
            assert [each.id async for each in stranger.vector_stores.list()] == [theirs.id]
            assert [each async for each in stranger.files.list()] == []
            for call in (
                stranger.files.retrieve(file.id),
                stranger.files.content(file.id),
                stranger.files.delete(file.id),
                stranger.vector_stores.retrieve(store.id),
                stranger.vector_stores.update(store.id, name="x"),
                stranger.vector_stores.delete(store.id),
                stranger.vector_stores.search(store.id, query="purrs"),
                stranger.vector_stores.files.list(store.id),
                stranger.vector_stores.files.create(store.id, file_id=file.id),
                stranger.vector_stores.files.content(file.id, vector_store_id=store.id),
                stranger.vector_stores.files.create(theirs.id, file_id=file.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    await call
            assert (await client.vector_stores.retrieve(store.id)).file_counts.total == 1
        status, _, _ = await running.post(f"/vector_stores/{store.id}/search", {"query": "purrs"})
        assert status == 401


async def test_what_cannot_be_read_fails_with_its_reason_and_the_rest_goes_on(running: Serving) -> None:
    async with running.openai() as client:
        store = await client.vector_stores.create()
        wanted = {
            "broken.pdf": (b"%PDF-1.7\nthis is no PDF at all", "invalid_file", "damaged"),
            "binary.bin": (bytes(range(256)) * 8, "unsupported_file", "no supported kind"),
            "blank.txt": (b" \n ", "invalid_file", "no text"),
            "good.pdf": (pdf_of("The animal purrs."), None, ""),
            "page.html": (b"<html><title>T</title><script>x()</script><p>An <b>animal</b> barks</p></html>", None, ""),
        }
        for name, (content, code, words) in wanted.items():
            file = await client.files.create(file=(name, io.BytesIO(content)), purpose="assistants")
            done = await client.vector_stores.files.create_and_poll(
                file.id, vector_store_id=store.id, poll_interval_ms=20
            )
            assert (done.last_error.code if done.last_error else None) == code, name
            assert words in (done.last_error.message if done.last_error else "")
            if name == "page.html":
                page = await client.vector_stores.files.content(file.id, vector_store_id=store.id)
                assert [each.text for each in page.data] == ["T\n\nAn animal barks"]
        counts = (await client.vector_stores.retrieve(store.id)).file_counts
        assert (counts.completed, counts.failed, counts.total) == (2, 3, 5)


async def test_batches_attributes_and_detaching(running: Serving) -> None:
    async with running.openai() as client:
        store = await client.vector_stores.create()
        files = [
            await client.files.create(file=(name, text.encode()), purpose="user_data") for name, text in TEXTS.items()
        ]
        batch = await client.vector_stores.file_batches.create_and_poll(
            store.id, file_ids=[file.id for file in files], poll_interval_ms=20
        )
        assert batch.file_counts.completed == 5
        listed = [each.id async for each in client.vector_stores.files.list(store.id, limit=2, order="asc")]
        assert sorted(listed) == sorted(file.id for file in files)
        cats = files[0].id
        await client.vector_stores.files.update(cats, vector_store_id=store.id, attributes={"legs": 4, "wild": False})
        found = await client.vector_stores.search(
            store.id,
            query="animal",
            filters={
                "type": "and",
                "filters": [{"type": "gte", "key": "legs", "value": 4}, {"type": "ne", "key": "wild", "value": True}],
            },
        )
        assert [each.file_id for each in found.data] == [cats]
        await client.vector_stores.files.delete(cats, vector_store_id=store.id)
        assert cats not in [
            each.file_id for each in (await client.vector_stores.search(store.id, query="cat purrs")).data
        ]
        await client.files.delete(files[1].id)
        assert files[1].id not in [each.id async for each in client.vector_stores.files.list(store.id)]


async def test_a_filter_reads_its_chunks_once_until_the_files_change(
    running: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    read = ChunkTable.keys
    monkeypatch.setattr(ChunkTable, "keys", lambda *given: reads.append(given) or read(*given))
    store_id = await running.store_of(TEXTS)
    async with running.openai() as client:
        cats, printer = [file.id async for file in client.vector_stores.files.list(store_id, order="asc")][:2]

        async def found() -> set[str]:
            wanted = {"type": "eq", "key": "legs", "value": True}
            page = await client.vector_stores.search(store_id, query="animal", filters=wanted)
            again = await client.vector_stores.search(store_id, query="printer", filters=wanted)
            assert {each.file_id for each in page.data} == {each.file_id for each in again.data}
            one = {"type": "eq", "key": "legs", "value": 1}  # is not true
            assert not (await client.vector_stores.search(store_id, query="animal", filters=one)).data
            return {each.file_id for each in page.data}

        assert await found() == set()
        await client.vector_stores.files.update(cats, vector_store_id=store_id, attributes={"legs": True})
        assert await found() == {cats}
        await client.vector_stores.files.create_and_poll(
            printer, vector_store_id=store_id, attributes={"legs": True}, poll_interval_ms=20
        )
        assert await found() == {cats, printer}
        await client.vector_stores.files.delete(cats, vector_store_id=store_id)
        assert await found() == {printer}
    assert len(reads) == 2 * 4 + 1  # two filters in four states of the store, and the file that was taken out


async def test_chunks_follow_the_static_strategy(running: Serving) -> None:
    async with running.openai() as client:
        store = await client.vector_stores.create()
        text = " ".join(f"word{number}." for number in range(400))
        file = await client.files.create(file=("long.txt", text.encode()), purpose="assistants")
        done = await client.vector_stores.files.create_and_poll(
            file.id,
            vector_store_id=store.id,
            poll_interval_ms=20,
            chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}},
        )
        assert done.status == "completed"
        page = await client.vector_stores.files.content(file.id, vector_store_id=store.id)
        assert " ".join(each.text or "" for each in page.data) == text
        assert len(page.data) > 8


async def test_stores_outlive_the_gateway_and_unfinished_files_are_read_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.retrieval.stores.ingestion.LOOK_EVERY_S", 0.02)
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
        stores = running.service.stores
        await stores.ingestion.aclose()
        late = await stores.files.upload(
            "",
            "late.txt",
            "user_data",
            io.BytesIO(b"A quokka is an animal that smiles."),
            len(b"A quokka is an animal that smiles."),
        )
        await stores.attach("", store_id, [Addition(late.file_id)])
        assert running.service.stores.catalog.claim(store_id, late.file_id, 1.0)  # as if the gateway had died over it
    async with serving(tmp_path) as running:
        await running.service.stores.ingestion.until_read(store_id, {late.file_id})
        _, answer, _ = await running.search(store_id, "quokka smiles")
        assert answer["data"][0]["filename"] == "late.txt"
        _, answer, _ = await running.search(store_id, "error code E1234")
        assert answer["data"][0]["filename"] == "printer.txt"


async def test_an_expert_that_comes_later_encodes_the_documents_that_are_there(tmp_path: Path) -> None:
    few = {name: entry for name, entry in EXPERTS.items() if name != "other"}
    config = retrieval_config()
    async with serving(
        tmp_path, config=config.model_copy(update={"experts": retrieval_config(experts=few).experts})
    ) as it:
        store_id = await it.store_of(TEXTS)
        assert (await it.search(store_id, TEXTS["dogs.md"], model="other"))[0] == 404
    async with serving(tmp_path, config=config) as it:
        while (found := await it.search(store_id, TEXTS["dogs.md"], model="other"))[0] == 503:
            pass
        assert found[2]["x-coe-expert"] == "other"
        assert found[1]["data"][0]["filename"] == "dogs.md"


async def test_a_store_of_another_encoder_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        store_id = await running.store_of(TEXTS)
    async with serving(tmp_path, config=retrieval_config(dim=128)) as running:
        status, answer, _ = await running.search(store_id, "animal")
        assert status == 409
        assert answer["error"]["code"] == "other_vector_space"
        assert "bring back that encoder" in answer["error"]["message"]


async def test_a_second_gateway_on_the_database_finds_what_the_first_adds_and_removes(tmp_path: Path) -> None:
    async with serving(tmp_path) as first, serving(tmp_path) as second:
        store_id = await first.store_of(TEXTS)
        for name in ("printer.txt", "dogs.md"):
            _, answer, _ = await second.search(store_id, TEXTS[name], model="base")
            assert answer["data"][0]["filename"] == name
            found = answer["data"][0]["file_id"]
            async with first.openai() as client:
                await client.vector_stores.files.delete(found, vector_store_id=store_id)
            _, answer, _ = await second.search(store_id, TEXTS[name], model="base")
            assert name not in {each["filename"] for each in answer["data"]}


BAD_REQUESTS: tuple[tuple[str, dict[str, object], int, str], ...] = (
    ("/vector_stores/vs_nope/search", {"query": "x"}, 404, "no vector store 'vs_nope'"),
    ("{store}/search", {"query": "  "}, 400, "'query' is empty"),
    ("{store}/search", {"query": ["x", ""]}, 400, "'query[1]' is empty"),
    ("{store}/search", {"query": "x", "max_num_results": 51}, 400, "max_num_results"),
    ("{store}/search", {"query": "x", "model": "nobody"}, 404, "no retrieval expert 'nobody'"),
    ("{store}/search", {"query": "x", "filters": {"type": "like", "key": "a", "value": 1}}, 400, "filters"),
    ("{store}/search", {"query": "x", "filters": {"type": "gt", "key": "a", "value": "b"}}, 400, "takes a number"),
    ("{store}/search", {"query": "x", "filters": {"type": "in", "key": "a", "value": 1}}, 400, "takes a list"),
    ("{store}/files", {"file_id": "file-nope"}, 404, "no file 'file-nope'"),
    ("{store}/files", {"file_id": "f", "attributes": {"k" * 65: 1}}, 400, "allowed: 1 to 64"),
    ("{store}/texts", {"texts": []}, 400, "texts"),
    ("{store}/file_batches", {}, 400, "either file_ids or files"),
    ("/vector_stores", {"chunking_strategy": {"type": "static", "static": TOO_MUCH_OVERLAP}}, 400, "at most half"),
    ("/vector_stores", {"file_ids": ["file-nope"]}, 404, "no file 'file-nope'"),
    ("/vector_stores", {"expires_after": {"anchor": "last_active_at", "days": 0}}, 400, "days"),
)  # fmt: skip


async def test_bad_requests_name_what_is_wrong(running: Serving) -> None:
    store = f"/vector_stores/{await running.store_of({'a.txt': 'x y z'})}"
    for path, body, status, words in BAD_REQUESTS:
        got, answer, _ = await running.post(path.replace("{store}", store), body)
        assert got == status, (path, body, answer)
        assert words in answer["error"]["message"], answer


HOSTILE = (
    b'{"query": "\\ud800"}',
    b'{"query": "x", "filters": ' + b'{"type": "and", "filters": [' * 3000 + b"]}" * 3000 + b"}",
    b"[" * 100_000,
    b'{"query": NaN}',
    b'{"query": "x", "max_num_results": 1e999}',
    b'{"query": "x", "filters": {"type": "eq", "key": "a", "value": 1e999}}',
    b'{"query": "x", "filters": {"type": "gt", "key": "a", "value": ' + b"9" * 400 + b"}}",
    b'{"query": {"a": 1}}',
    b"\xff\xfe",
    b"",
)


async def test_hostile_bodies_are_refused_in_json(running: Serving) -> None:
    store_id = await running.store_of({"a.txt": "x y z"}, a={"a": 1})
    for body in HOSTILE:
        for path in (f"/vector_stores/{store_id}/search", "/embeddings", "/rerank", f"/vector_stores/{store_id}/texts"):
            headers = {"content-type": "application/json"}
            async with running.http.post(running.url + path, data=body, headers=headers) as response:
                assert 400 <= response.status < 500, (path, body[:60])
                assert (await response.json())["error"]["message"]
    await running.post(f"/vector_stores/{store_id}/texts", {"texts": [{"text": "huge", "attributes": {"n": 10**30}}]})
    status, answer, _ = await running.search(store_id, "huge", filters={"type": "gt", "key": "n", "value": 10**29})
    assert status == 200, answer
    assert [each["attributes"] for each in answer["data"]] == [{"n": 1e30}]


async def test_an_upload_is_limited_and_named_safely(tmp_path: Path) -> None:
    config = retrieval_config(max_file_mb=1)
    async with serving(tmp_path, config=config, max_body_bytes=2048) as running, running.openai() as client:
        name = "../../etc/pass\u200bwd.txt"
        kept = await client.files.create(file=(name, b"x" * 1024 * 1024), purpose="assistants")
        assert kept.filename == "passwd.txt"
        assert kept.bytes == 1024 * 1024
        assert (await client.files.content(kept.id)).content == b"x" * 1024 * 1024
        with pytest.raises(openai.APIStatusError) as too_large:
            await client.files.create(file=("a.txt", b"x" * 2 * 1024 * 1024), purpose="assistants")
        assert too_large.value.status_code == 413
        with pytest.raises(openai.BadRequestError, match="purpose"):
            await client.files.create(file=("a.txt", b"x"), purpose="fine-tune")
        with pytest.raises(openai.BadRequestError, match="is empty"):
            await client.files.create(file=("a.txt", b""), purpose="assistants")


async def test_without_retrieval_or_a_database_the_answer_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path, has_store=False) as running:
        status, answer, _ = await running.post("/vector_stores", {})
        assert status == 503
        assert "no database" in answer["error"]["message"]
    async with (
        plain.running() as gateway,
        gateway.client.post(f"{gateway.gateway.url}/embeddings", json={"input": "x"}) as response,
    ):
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "retrieval_not_configured"


async def test_expired_stores_are_deleted(running: Serving) -> None:
    store_id = await running.store_of(TEXTS)
    stores: VectorStores = running.service.stores
    values = {"expires_days": 1, "last_active_at": 1.0}
    stores.catalog.change_store(store_id, values)
    status, answer, _ = await running.search(store_id, "animal")
    assert status == 404
    assert "has expired" in answer["error"]["message"]
    assert stores.catalog.expired_stores() == [store_id]
