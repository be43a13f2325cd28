"""Settings that turn telemetry on, and those that are refused."""

from __future__ import annotations

import pytest

from coe.base.errors import ConfigError
from coe.gateway.settings import read_settings
from coe.gateway.telemetry.request_spans import resource_of

ANY = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}


@pytest.mark.parametrize(
    ("variables", "sends_traces"),
    [
        ({}, False),
        (ANY, True),
        (TRACES, True),
        ({**ANY, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ANY, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ANY, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_traces_go_where_the_environment_says(variables: dict[str, str], sends_traces: bool) -> None:
    assert read_settings(variables).sends_traces is sends_traces


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({**ANY, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL='grpc'.* allowed: http/protobuf"),
        ({**TRACES, "OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER='zipkin'.* allowed: otlp, none"),
        ({"COE_LOG_FORMAT": "xml"}, "COE_LOG_FORMAT='xml'.* allowed: text, json"),
    ],
)
def test_what_is_not_there_is_refused(variables: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_settings(variables)


def test_a_gateway_names_itself_and_the_environment_wins(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    named = resource_of("one").attributes
    assert (named["service.name"], named["service.instance.id"]) == ("coe", "one")
    assert named["deployment.environment.name"] == "test"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    assert resource_of("one").attributes["service.name"] == "ours"
