"""Events `gen_ai.evaluation.result`: kept as feedback when they come, and sent when an answer is graded."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from coe.decision_log.database import Database
from coe.gateway.http_errors import ApiError
from coe.gateway.telemetry.otlp import json_of, log_records
from tests.gateway.running import Running, running
from tests.gateway.telemetry.collector import collecting, exporting_to
from tests.waiting import until

DATABASES = ("sqlite",)

KEY, OTHER = "a-key-of-enough-length", "another-key-of-enough-length"
HEADERS = {"authorization": f"Bearer {KEY}"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@asynccontextmanager
async def answered(store: Database, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> AsyncIterator[Any]:
    """A gateway that has answered requests of one trace, the ids of their decisions, and a collector."""
    async with (
        collecting() as collector,
        exporting_to(collector.url, monkeypatch) as telemetry,
        running(store=store, keys=[KEY, OTHER], telemetry=telemetry) as gateway,
    ):
        ids = []
        for number in range(count):
            headers = {**HEADERS, "traceparent": f"00-{TRACE}-{PARENT}-01"}
            async with gateway.chat("green", headers=headers) as answer:
                ids.append(answer.headers["x-coe-decision-id"])
            store.write_decisions([await gateway.record(number)])
        yield gateway, ids, collector


def event(trace_id: str = TRACE, span_id: str = PARENT, name: str = "Correctness", **attributes: object) -> dict:
    values = {"gen_ai.evaluation.name": name, **{key.replace("_", "."): value for key, value in attributes.items()}}
    listed = []
    for key, value in values.items():
        kind = {float: "doubleValue", int: "intValue", str: "stringValue"}[type(value)]
        full = key if key.startswith("gen_ai") else f"gen_ai.{key}"
        listed.append({"key": full, "value": {kind: str(value) if kind == "intValue" else value}})
    return {"eventName": "gen_ai.evaluation.result", "traceId": trace_id, "spanId": span_id, "attributes": listed}


async def post(gateway: Running, *events: dict, headers: dict[str, str] = HEADERS) -> tuple[int, dict[str, Any]]:
    body = {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": list(events)}]}]}
    async with gateway.client.post(f"{gateway.gateway.url}/logs", json=body, headers=headers) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ({"evaluation_score_value": 0.75}, 0.75),
        ({"evaluation_score_value": 1}, 1.0),
        ({"evaluation_score_label": "fail"}, 0.0),
    ],
)
async def test_an_event_on_a_span_of_the_trace_is_feedback(attributes, value, store: Database, monkeypatch) -> None:
    async with answered(store, monkeypatch) as (gateway, (decision_id,), _):
        assert await post(gateway, event(**attributes)) == (200, {})
        (kept,) = store.get_feedback(decision_id)
    assert (kept.kind, kept.value) == ("score", value)


async def test_each_way_of_naming_a_decision_of_many_finds_it(store: Database, monkeypatch) -> None:
    async with answered(store, monkeypatch, count=3) as (gateway, ids, collector):
        spans = await collector.wait(6)
        call = next(span for span in spans if span.kind == "CLIENT" and span.span_id[:-1] == ids[1][-16:-1])
        server = next(span for span in spans if span.span_id == ids[0][-16:])
        events = [
            event(span_id=server.span_id, evaluation_score_value=0.1),
            event(span_id=call.span_id, evaluation_score_value=0.2),
            event(evaluation_score_value=0.3, response_id=ids[2].replace("dec-", "resp_")),  # as a client's span has it
        ]
        assert await post(gateway, *events) == (200, {})
        assert [store.get_feedback(each)[0].value for each in ids] == [0.1, 0.2, 0.3]
        status, answer = await post(gateway, event(evaluation_score_value=0.4))  # whose span, no decision of three has
    assert status == 200
    assert answer["partialSuccess"]["rejectedLogRecords"] == "1"
    assert "gen_ai.response.id" in answer["partialSuccess"]["errorMessage"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (event(name="Toxicity", evaluation_score_value=1.0), "feedback.evaluations does not name 'Toxicity'"),
        (event(evaluation_score_value=4.0), "'Correctness': must be at most 1"),
        (event(evaluation_score_label="so-so"), "'Correctness': kind 'score' needs 'value'"),
        (event(evaluation_score_value="high"), "'Correctness': must be a number"),
        (event("f" * 32, evaluation_score_value=1.0), "there is no decision"),
        (event("", "", evaluation_score_value=1.0), "there is no decision"),
        (event("", "", evaluation_score_value=1.0, response_id="chatcmpl-\0"), "there is no decision"),
        ({"eventName": "other"}, "allowed: gen_ai.evaluation.result"),
    ],
)
async def test_what_is_not_kept_is_counted_and_said(wrong, says: str, store: Database, monkeypatch) -> None:
    async with answered(store, monkeypatch) as (gateway, (decision_id,), _):
        status, answer = await post(gateway, wrong, event(evaluation_score_value=0.5))
        assert len(store.get_feedback(decision_id)) == 1
    assert status == 200
    assert answer["partialSuccess"]["rejectedLogRecords"] == "1"
    assert says in answer["partialSuccess"]["errorMessage"]


async def test_another_team_cannot_grade(store: Database, monkeypatch) -> None:
    async with answered(store, monkeypatch) as (gateway, (decision_id,), _):
        headers = {"authorization": f"Bearer {OTHER}"}
        _, answer = await post(gateway, event(evaluation_score_value=0.0), headers=headers)
        assert answer["partialSuccess"]["rejectedLogRecords"] == "1"
        assert store.get_feedback(decision_id) == ()
        status, _ = await post(gateway, event(evaluation_score_value=0.0), headers={})
    assert status == 401


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_opentelemetrys_own_exporter_is_understood(compression: str, store: Database, monkeypatch) -> None:
    async with answered(store, monkeypatch) as (gateway, (decision_id,), _):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", compression)
        exporter = OTLPLogExporter(f"{gateway.gateway.url}/logs", headers=HEADERS)
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        span = SpanContext(int(TRACE, 16), int(decision_id[-16:], 16), is_remote=True, trace_flags=TraceFlags(1))
        emitted = {"gen_ai.evaluation.name": "Correctness", "gen_ai.evaluation.score.value": 0.25}
        logger, context = provider.get_logger("an evaluator"), set_span_in_context(NonRecordingSpan(span))

        def emit() -> None:
            logger.emit(context=context, event_name="gen_ai.evaluation.result", attributes=emitted)

        await asyncio.to_thread(emit)
        (kept,) = store.get_feedback(decision_id)
        provider.shutdown()
    assert kept.value == 0.25


async def test_protocol_buffers_are_answered_in_kind(store: Database, monkeypatch) -> None:
    async with answered(store, monkeypatch) as (gateway, _, __):
        message = ExportLogsServiceRequest()
        message.resource_logs.add().scope_logs.add().log_records.add(event_name="nothing")
        headers = {**HEADERS, "content-type": "application/x-protobuf", "content-encoding": "gzip"}
        packed = gzip.compress(message.SerializeToString())
        bodies = [packed, b"no gzip", packed[:-1], gzip.compress(b"no message")]
        found = []
        for body in [*bodies, gzip.compress(b"\0" * (5 << 20))]:
            async with gateway.client.post(f"{gateway.gateway.url}/logs", data=body, headers=headers) as answer:
                found.append((answer.status, answer.content_type, await answer.read()))
    assert [status for status, _, _ in found] == [200, 400, 400, 400, 413]
    assert found[0][1] == "application/x-protobuf"
    assert ExportLogsServiceResponse.FromString(found[0][2]).partial_success.rejected_log_records == 1


async def test_feedback_is_sent_to_the_collector_on_the_span_that_it_is_about(store: Database, monkeypatch) -> None:
    async with answered(store, monkeypatch) as (gateway, (decision_id,), collector):
        for value, kind in ((1, "thumb"), (1, "thumb"), (0, "test")):
            body = {"decision_id": decision_id, "kind": kind, "value": value}
            async with gateway.client.post(f"{gateway.gateway.url}/feedback", json=body, headers=HEADERS) as answer:
                assert answer.status in (200, 202)
        await until(lambda: len(collector.events) == 2)
    thumb, test = collector.events
    assert (thumb.name, thumb.trace_id, thumb.span_id) == ("gen_ai.evaluation.result", TRACE, decision_id[-16:])
    assert thumb.attributes == {
        "gen_ai.evaluation.name": "coe.feedback.thumb",
        "gen_ai.evaluation.score.value": 1.0,
        "gen_ai.response.id": decision_id,
    }
    assert test.attributes["gen_ai.evaluation.name"] == "coe.feedback.test"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["resourceLogs", "scopeLogs", "logRecords", "attributes", "key", "value"]), inner
        )
    ),
)


@given(JSON | st.fixed_dictionaries({"resourceLogs": st.lists(st.fixed_dictionaries({"scopeLogs": JSON}), max_size=2)}))
def test_whatever_json_comes_is_read_or_refused(values: object) -> None:
    with suppress(ApiError):
        assert all(isinstance(each.event, str) for each in log_records(values))


@given(st.binary(max_size=60))
def test_whatever_bytes_come_are_read_or_refused(raw: bytes) -> None:
    with suppress(ApiError):
        log_records(json.loads(json_of(raw)))
