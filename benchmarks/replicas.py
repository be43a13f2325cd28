"""Measures the share of prompt tokens that engines find in their prefix cache, where conversations stay and where not.

    python -m benchmarks.replicas

Three fake vLLM servers (`tests/fake_vllm`) play the engines of one expert: their cache is real, their model is not.
Clients hold conversations at once, each turn with all before it. Prints the mean of ten seeds and its 95% interval.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from contextlib import AsyncExitStack

from aiohttp import web

from coe.fleet.calls.backend import BackendRequest
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.calls.replicas import Replicas
from coe.fleet.providers import vllm
from tests.fake_vllm.command import FakeOptions
from tests.fake_vllm.engine import FakeEngine
from tests.fake_vllm.server import FakeServer

ENGINES, CLIENTS, CONVERSATIONS, TURNS, WORDS = 3, 24, 60, 6, 60
THINKING_S = 0.1
"""Longest pause before the next turn. Without one, the engine that a client has just left is the least loaded, so that
everybody stays by accident."""

SEEDS = range(10)


async def cached_share(seed: int, *, is_kept: bool) -> float:
    """Share of prompt tokens that were cached; without `is_kept` the least loaded engine gets each request."""
    rng = random.Random(seed)
    options = FakeOptions(model="m", served_model_name=("m",), max_model_len=10_000, tokens_per_s=200.0)
    engines = [FakeEngine(options) for _ in range(ENGINES)]
    async with AsyncExitStack() as stack:
        backends = {}
        for engine in engines:
            runner = web.AppRunner(FakeServer(engine).app(), access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            backends[url] = vllm.build(vllm.Options(url=url, served_model="m"))
        pool = ExpertPool({"m": Replicas("m", backends)})
        stack.push_async_callback(pool.aclose)
        waiting = [f"{seed} {number}" for number in range(CONVERSATIONS)]

        async def client() -> None:
            while waiting:
                name, messages = waiting.pop(), list[dict[str, str]]()
                for _ in range(TURNS):
                    text = " ".join(str(rng.randrange(10**6)) for _ in range(WORDS))
                    messages.append({"role": "user", "content": text})
                    body = {"messages": messages, "max_tokens": rng.randint(2, 14)}
                    call = await pool.call("m", name if is_kept else "")
                    response = await call.send(BackendRequest(body))
                    async for _ in response.chunks:
                        pass
                    call.succeeded()
                    messages.append({"role": "assistant", "content": text[:20]})
                    await asyncio.sleep(rng.uniform(0.0, THINKING_S))

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    hits = sum(engine.totals.prefix_cache_hits for engine in engines)
    return hits / sum(engine.totals.prefix_cache_queries for engine in engines)


async def main() -> None:
    for is_kept, name in ((True, "conversations stay"), (False, "least loaded")):
        shares = [await cached_share(seed, is_kept=is_kept) for seed in SEEDS]
        error = 2.26 * statistics.stdev(shares) / len(shares) ** 0.5  # Student's t, 9 degrees of freedom
        mean = statistics.mean(shares)
        print(f"{name}: {mean:.3f} [{mean - error:.3f}, {mean + error:.3f}] of prompt tokens were cached")


if __name__ == "__main__":
    asyncio.run(main())
