"""The fake's metrics: vLLM's names for what others read, and `fake_vllm:*` for the memory that no engine tells."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.fake_vllm.engine import FakeEngine

FINISH_REASONS = ("stop", "length", "abort", "error")


def metrics_text(engine: FakeEngine) -> str:
    """Prometheus text."""
    lines = []
    for name, kind, samples in families(engine):
        lines.append(f"# TYPE {name} {kind}")
        for labels, value in samples.items():
            shown = f'engine="0",model_name="{engine.options.served_model_name[0]}"' + labels
            lines.append(f"{name}{{{shown}}} {value}")
    return "\n".join(lines) + "\n"


def families(engine: FakeEngine) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Name, type, and values by further labels."""
    totals, state = engine.totals, engine.sleep_state
    for name, value in {
        "vllm:num_requests_running": engine.running,
        "vllm:num_requests_waiting": engine.waiting,
        "vllm:kv_cache_usage_perc": min(1.0, engine.running / engine.options.max_num_seqs),
        "fake_vllm:gpu_gib": engine.card.held_gib,
        "fake_vllm:host_gib": engine.host_gib,
    }.items():
        yield name, "gauge", {"": float(value)}
    states = ("awake", "weights_offloaded", "discard_all")
    yield "vllm:engine_sleep_state", "gauge", {f',sleep_state="{each}"': float(each == state) for each in states}
    for name, total in {
        "prefix_cache_queries": totals.prefix_cache_queries,
        "prefix_cache_hits": totals.prefix_cache_hits,
        "prompt_tokens": totals.prompt_tokens,
        "generation_tokens": totals.generation_tokens,
    }.items():
        yield f"vllm:{name}_total", "counter", {"": float(total)}
    successes = {f',finished_reason="{each}"': float(totals.request_success.get(each, 0)) for each in FINISH_REASONS}
    yield "vllm:request_success_total", "counter", successes
