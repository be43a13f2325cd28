"""The histograms of OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.metrics import Histogram, Meter

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKENS = tuple(float(4**power) for power in range(14))
"""The buckets that the conventions ask for."""


class Instruments:
    """The histograms of the conventions."""

    def __init__(self, meter: Meter) -> None:
        def histogram(name: str, unit: str, text: str, buckets: Sequence[float]) -> Histogram:
            return meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=buckets)

        self.operation_duration = histogram(
            "gen_ai.client.operation.duration", "s", "A call of an expert, to its last byte", SECONDS
        )
        self.time_to_first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "A call of an expert, to its first byte", SECONDS
        )
        self.token_usage = histogram("gen_ai.client.token.usage", "{token}", "Tokens of a call of an expert", TOKENS)
        self.request_duration = histogram("gen_ai.server.request.duration", "s", "A request of a client", SECONDS)
        self.time_to_first_token = histogram(
            "gen_ai.server.time_to_first_token", "s", "A client's wait for the first byte of a stream", FIRST_SECONDS
        )
