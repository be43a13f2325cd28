"""`python -m tests.fake_vllm`, with vLLM's command line."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

from coe.base.errors import EngineError
from coe.fleet.processes.stop_signal import stop_on_signal
from tests.fake_vllm.command import FakeOptions, parse_command
from tests.fake_vllm.engine import FakeEngine
from tests.fake_vllm.server import FakeServer


async def serve(options: FakeOptions) -> int:
    """Serves until a signal, or until the engine dies; returns the exit status."""
    engine = FakeEngine(options)
    with stop_on_signal() as stop:
        try:
            await engine.start()
        except (EngineError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
        sys.stdout.write(memory_lines(options))
        sys.stdout.flush()
        runner = web.AppRunner(FakeServer(engine).app(), access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, options.host, options.port).start()
        endings = [asyncio.create_task(stop.wait()), asyncio.create_task(engine.died.wait())]
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        for task in endings:
            task.cancel()
        await runner.cleanup()
    return int(engine.died.is_set())


def memory_lines(options: FakeOptions) -> str:
    """What vLLM logs of its memory once it has started."""
    consumed_gib = options.weights_gib + options.cuda_gib
    return (
        f"INFO Model loading took {options.weights_gib:.2f} GiB memory and 0.100000 seconds\n"
        f"INFO Free memory on device (80.0/80.0 GiB) on startup. Actual usage is {consumed_gib:.2f} GiB for consumed "
        "memory (weights + non-torch), 1.75 GiB for peak activation, and 0.5 GiB for CUDAGraph memory. Replace ...\n"
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(parse_command(sys.argv[1:]))))
