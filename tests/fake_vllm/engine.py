"""The state of a fake server: what runs and waits, what sleeps, which adapters are loaded, how much memory it holds."""

from __future__ import annotations

import asyncio
import json
import os
import re
import zlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coe.base.errors import EngineError
from coe.base.whole_files import locked
from tests.fake_vllm.command import Bug, FakeOptions

LOOK_EVERY_S = 0.002
TOKEN = re.compile(r"\s*\S+|\s+$")
BLOCK_TOKENS = 16
MAX_BLOCKS = 4096
MEMORY_TAGS = frozenset({"weights", "kv_cache"})
NOISE = "!"


class EngineDeadError(EngineError):
    """The engine has ended, and its server ends with it."""


class OutOfMemoryError(EngineError):
    """A GPU has less free memory than is asked for, because others hold some."""

    others_gib = 0.0


@dataclass(slots=True)
class Totals:
    """Counters since the start, under vLLM's names without `vllm:` and `_total`."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    request_success: dict[str, int] = field(default_factory=dict)  # by finish reason


@dataclass(slots=True)
class Generation:
    """One answer on its way. `finish_reason` is there once its tokens have ended."""

    prompt_tokens: int
    made_tokens: int = 0
    finish_reason: str = ""


class Card:
    """Memory that one process holds of its GPUs. Without a folder nobody shares them.

    Args:
        folder: the same for all fakes of a host; files of processes that have died do not count.
        devices: the GPUs that hold this process, as in CUDA_VISIBLE_DEVICES.
        size_gib: of each GPU.
    """

    def __init__(self, folder: Path | None, devices: Iterable[str], size_gib: float) -> None:
        self._folder, self._devices, self.size_gib = folder, tuple(devices), size_gib
        self.held_gib = 0.0

    def hold(self, gib: float) -> None:
        """Holds that much of each GPU instead of what it held. Raises OutOfMemoryError: others leave less."""
        if self._folder is None:
            self._take(gib, dict.fromkeys(self._devices, 0.0))
            return
        with locked(self._folder / "lock"):
            self._take(gib, {device: others_gib(self._folder, device) for device in self._devices})
            for device in self._devices:
                (self._folder / f"{device}.{os.getpid()}").write_text(str(gib))

    @contextmanager
    def starting(self) -> Iterator[None]:
        """A start, while which no other may change what is free. Raises EngineError."""
        if self._folder is None:
            yield
            return
        files = [self._folder / f"{device}.starts" for device in self._devices]
        for file in files:
            with locked(self._folder / "lock"):
                if file.exists() and is_alive(int(file.read_text())):
                    raise EngineError("Error in memory profiling. Initial free memory and current free memory differ.")
                file.write_text(str(os.getpid()))
        yield
        for file in files:
            file.unlink()

    def _take(self, gib: float, others: dict[str, float]) -> None:
        for device, held_gib in others.items():
            if gib > self.size_gib - held_gib + 1e-6:
                error = OutOfMemoryError(
                    f"CUDA out of memory: GPU {device} has {self.size_gib - held_gib:.2f} GiB free of "
                    f"{self.size_gib:.2f} GiB; wanted {gib:.2f} GiB"
                )
                error.others_gib = held_gib
                raise error
        self.held_gib = gib


def others_gib(folder: Path, device: str) -> float:
    """GiB of a GPU that other living processes hold."""
    held_gib = 0.0
    for file in folder.glob(f"{device}.[0-9]*"):
        pid = int(file.suffix[1:])
        if pid != os.getpid() and is_alive(pid):
            held_gib += float(file.read_text() or 0)
    return held_gib


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


class FakeEngine:
    """Answers with the name of the model that was asked and the question. Use from one event loop."""

    def __init__(self, options: FakeOptions) -> None:
        self.options = options
        self.card = Card(options.card, options.devices, options.card_gib)
        self.running = self.waiting = 0
        self.host_gib = 0.0
        self.totals = Totals()
        self.adapters: dict[str, str] = {}
        self.asleep: frozenset[str] = frozenset()  # memory tags
        self.died = asyncio.Event()
        self._awake_gib = options.gpu_memory_utilization * options.card_gib
        self._level = 0
        self._takes_new = self._steps = True  # vLLM's pause states: PAUSED_NEW, PAUSED_ALL
        self._aborted = 0  # times that running requests were aborted
        self._is_noise = self._has_lost_adapters = False
        self._transition = asyncio.Lock()
        self._blocks: dict[int, None] = {}  # hashes of cached prompt prefixes, least recently used first

    async def start(self) -> None:
        """Takes its memory and loads the adapters of its command line.

        Raises:
            OutOfMemoryError: the GPU has no room.
            EngineError: an adapter cannot be loaded.
        """
        with self.card.starting():
            try:
                self.card.hold(self._awake_gib)
            except OutOfMemoryError as error:
                size_gib, share = self.card.size_gib, self.options.gpu_memory_utilization
                free = f"({size_gib - error.others_gib:.2f}/{size_gib:.2f} GiB)"
                raise OutOfMemoryError(
                    f"Free memory on device cuda:0 {free} on startup is less than desired GPU memory utilization "
                    f"({share}, {self._awake_gib:.2f} GiB)."
                ) from error
            await asyncio.sleep(self.options.start_s)
        for name, path in self.options.lora_modules.items():
            self.load_adapter(name, path)

    @property
    def is_sleeping(self) -> bool:
        """As vLLM tells it: memory sleeps, or the scheduler is paused."""
        return bool(self.asleep) or not self._takes_new

    @property
    def sleep_state(self) -> str:
        """As the metric `vllm:engine_sleep_state` names it."""
        return ("discard_all" if self._level == 2 else "weights_offloaded") if self.asleep else "awake"

    async def generate(
        self, model: str, prompt: str, question: str, max_tokens: int, made: Generation
    ) -> AsyncIterator[str]:
        """The answer's tokens as they are made; `made` follows them."""
        words = self._answer(model, question)
        async with self._place():
            aborted = self._aborted
            await pace(self._uncached(TOKEN.findall(prompt)), self.options.prefill_tokens_per_s)
            for word in words[:max_tokens]:
                await pace(1, self.options.tokens_per_s)
                while not self._steps and aborted == self._aborted:
                    await asyncio.sleep(LOOK_EVERY_S)
                if aborted != self._aborted:
                    made.finish_reason = "abort"
                    break
                made.made_tokens += 1
                yield word
        made.finish_reason = made.finish_reason or ("stop" if made.made_tokens == len(words) else "length")
        totals = self.totals
        totals.prompt_tokens += made.prompt_tokens
        totals.generation_tokens += made.made_tokens
        totals.request_success[made.finish_reason] = totals.request_success.get(made.finish_reason, 0) + 1

    def logprobs(self, model: str, text: str, count: int) -> dict[str, float]:
        """Of so many tokens that may follow a text."""
        name = NOISE if self._is_noise else self._answerer(model)
        return {f"t{rank}": -(zlib.crc32(f"{name} {text} {rank}".encode()) % 1000) / 100 for rank in range(count)}

    async def pooled(self, model: str, texts: Sequence[str], dim: int) -> list[list[float]]:
        """A vector of each text, by its words."""
        async with self._place():
            name = NOISE if self._is_noise else model
            self.totals.prompt_tokens += sum(len(TOKEN.findall(text)) for text in texts)
            return [
                [
                    sum(zlib.crc32(f"{name} {word} {i}".encode()) % 2001 - 1000 for word in text.split()) / 1000
                    for i in range(dim)
                ]
                for text in texts
            ]

    def _answerer(self, model: str) -> str:
        is_base = self._has_lost_adapters and model in self.adapters
        return self.options.served_model_name[0] if is_base else model

    def _answer(self, model: str, question: str) -> list[str]:
        text = f"{self._answerer(model)}: {question}"
        words = TOKEN.findall(text)
        if len(words) < self.options.answer_tokens:
            words = TOKEN.findall(" ".join([text] * self.options.answer_tokens))[: self.options.answer_tokens]
        return [NOISE] * len(words) if self._is_noise else words

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among the running requests, once there is one and nothing is paused."""
        self.waiting += 1
        try:
            while not self._takes_new or self.running >= self.options.max_num_seqs:
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def _uncached(self, tokens: list[str]) -> int:
        """Tokens of a prompt that no earlier prompt began with; what it leaves in the cache is noted."""
        cached, prefix = 0, 0
        for begin in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            prefix = hash((prefix, *tokens[begin : begin + BLOCK_TOKENS]))
            cached += BLOCK_TOKENS if self._blocks.pop(prefix, 0) is None else 0
            self._blocks[prefix] = None
        while len(self._blocks) > MAX_BLOCKS:
            del self._blocks[next(iter(self._blocks))]
        self.totals.prefix_cache_queries += len(tokens)
        self.totals.prefix_cache_hits += cached
        return len(tokens) - cached

    async def sleep(self, level: int, mode: str) -> None:
        """As vLLM 0.32: new requests queue until the wake. `abort` ends those that run, `wait` lets them end, `keep`
        freezes them. Level 0 only pauses, level 1 moves weights to the host, level 2 drops them.

        Raises:
            EngineError: levels 1 and 2 without --enable-sleep-mode.
        """
        if Bug.DROPS_ARGUMENTS in self.options.bugs:
            level, mode = 1, "abort"
        if level and not self.options.enable_sleep_mode:
            raise EngineError("sleep mode is not enabled: start with --enable-sleep-mode")
        async with self._transition:
            self._takes_new = False
            self._aborted += mode == "abort"
            self._steps = mode != "keep"
            while self.running and mode != "keep":
                await asyncio.sleep(LOOK_EVERY_S)
            if level == 0 or self.asleep:
                return
            await asyncio.sleep(self.options.sleep_s[level - 1])
            self._blocks.clear()
            self.asleep, self._level = MEMORY_TAGS, level
            self.card.hold(self.options.sleeper_gib)
            if level == 1:
                self.host_gib += self.options.weights_gib
            else:
                self._is_noise = True

    async def wake(self, tags: Collection[str] = ()) -> bool:
        """Gives back the memory of those tags, or of all; True where nothing sleeps any more.

        Raises:
            EngineDeadError: others took the memory meanwhile.
        """
        async with self._transition:
            wanted = frozenset(tags) - {"scheduling"} or (frozenset() if tags else self.asleep)
            if not wanted <= self.asleep:
                return not self.asleep
            if "weights" in wanted and self._level == 1:
                await asyncio.sleep(self.options.wake_s[0])
            still = self.asleep - wanted
            try:
                self.card.hold(self._held_gib(still))
            except EngineError as error:
                raise self._end(str(error)) from error
            if "weights" in wanted and self._level == 1:
                self.host_gib -= 0.0 if Bug.HOST_MEMORY in self.options.bugs else self.options.weights_gib
                self._has_lost_adapters |= Bug.LORA_LOST in self.options.bugs
            self.asleep = still
            if not still:
                self._takes_new = self._steps = True
            return not still

    def _held_gib(self, asleep: frozenset[str]) -> float:
        """GiB of a GPU while those tags sleep."""
        if not asleep:
            return self._awake_gib
        return self.options.sleeper_gib + (0.0 if "weights" in asleep else self.options.weights_gib)

    async def reload_weights(self) -> None:
        """Reads weights into memory that is there; needed after level 2.

        Raises:
            EngineDeadError: a known bug with LoRA.
        """
        if Bug.LORA_LEVEL_2 in self.options.bugs and self.options.enable_lora:
            raise self._end("KeyError: 'layers.0.mlp.gate_up_proj.weight'")
        await asyncio.sleep(self.options.wake_s[1])
        self._is_noise = "weights" in self.asleep or Bug.WRONG_WEIGHTS in self.options.bugs

    def reset_prefix_cache(self) -> bool:
        if not self.running:
            self._blocks.clear()
        return not self.running

    def load_adapter(self, name: str, path: str) -> None:
        """Raises FileNotFoundError where the folder has no adapter, EngineError where its rank is too high."""
        file = Path(path) / "adapter_config.json"
        if not file.exists():
            raise FileNotFoundError(f"Loading lora {name} failed: No adapter found for {path}")
        rank = int(json.loads(file.read_text(encoding="utf-8"))["r"])
        if rank > self.options.max_lora_rank:
            raise EngineError(f"LoRA rank {rank} is greater than max_lora_rank {self.options.max_lora_rank}.")
        self.adapters[name] = path

    def _end(self, reason: str) -> EngineDeadError:
        self.died.set()
        return EngineDeadError(reason)


async def pace(tokens: int, tokens_per_s: float) -> None:
    """Takes the time of so many tokens."""
    await asyncio.sleep(tokens / tokens_per_s if tokens_per_s else 0.0)
