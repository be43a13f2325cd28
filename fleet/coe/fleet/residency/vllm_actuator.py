"""Moves vLLM engines between awake, asleep and stopped, by vLLM's own endpoints.

They are there with `--enable-sleep-mode`, for which `coe` sets VLLM_SERVER_DEV_MODE. Answers differ between versions
(0.32 names the new state, earlier ones say nothing), so only the state afterwards counts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from coe.base.errors import BackendError
from coe.base.json_text import from_json
from coe.fleet.calls.backend import reply_json
from coe.fleet.residency.fingerprints import ASKED, Fingerprint, answer_of, is_same
from coe.fleet.residency.types import ABSENT, SLEEPS, Residency, SleepLevel
from coe.fleet.vllm.addresses import Desired
from coe.fleet.vllm.desired_state import DesiredProcesses

TRANSITION_S = 600.0
"""Running requests may take minutes to end before a sleep, and 72B of weights to be read from a disk."""

LOOK_S = 5.0
OLDEST = (0, 32)
"""Version of vLLM whose protocol this is. Earlier ones may sleep under running requests, as 0.12 does."""

VERSION = re.compile(r'"version":\s*"v?(\d+)\.(\d+)')
SLEEP_STATE = re.compile(r'^vllm:engine_sleep_state\{[^}]*sleep_state="(\w+)"[^}]*\} 1(?:\.0)?$', re.MULTILINE)
STATE_OF = {"weights_offloaded": Residency.SLEEP_1, "discard_all": Residency.SLEEP_2}


class Place(NamedTuple):
    """An engine: an expert that it serves, and its API root."""

    expert: str
    root: str


class VllmActuator:
    """Engines of this host and of others, named by any expert that they serve. Experts on one engine move together, and
    so do the engines of an expert that has several. Every method returns when they are there.

    Args:
        urls: API roots per expert now; an expert that is not among them has no engine.
        processes: those of this host; None where others run the engines, which then can be neither stopped nor started.
        keys: that engines ask for, by expert.
    """

    def __init__(
        self,
        urls: Callable[[], Mapping[str, Sequence[str]]],
        processes: DesiredProcesses | None = None,
        keys: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._urls, self._processes, self._keys = urls, processes, keys
        self._fingerprints: dict[str, Fingerprint] = {}  # by API root
        self._session: aiohttp.ClientSession | None = None

    async def examine(self, expert: str) -> dict[str, Fingerprint]:
        """Fingerprints of engines that are awake and have not slept yet, by API root. Raises BackendError: one is of a
        version that sleeps in another way."""
        places = [place for place, state in await self._states(expert) if state is Residency.AWAKE]
        for place in places:
            await self._require_version(place)
            known = self._known(place)
            self._fingerprints[place.root] = {**await self._fingerprint(place, but=known), **known}
        return {place.root: self._fingerprints[place.root] for place in places}

    async def sleep(self, expert: str, level: SleepLevel) -> None:
        """Lets running requests end (`mode=wait`), then frees the GPU. Raises BackendError."""
        await self.examine(expert)
        there = [place for place, state in await self._states(expert) if state not in ABSENT]
        await self._put_to_sleep(there, level)
        if (state := await self.state(expert)) not in SLEEPS:
            raise BackendError(f"the engine of {expert} did not go to sleep: it is {state}")
        self._desire(expert, Desired.ASLEEP)

    async def _put_to_sleep(self, places: Sequence[Place], level: SleepLevel) -> None:
        asked = {"level": str(level), "mode": "wait"}
        await asyncio.gather(*(self._post(place, "sleep", asked) for place in places))

    async def wake(self, expert: str) -> None:
        """Wakes an engine from either level, or starts it where it is stopped. Raises BackendError: it did not wake, or
        answered otherwise than before and serves nobody."""
        states = await self._states(expert)
        absent = {place.root for place, state in states if state in ABSENT}
        self._desire(expert, Desired.AWAKE)
        if absent or not states:
            await self._of_this_host(expert).start(expert, absent)
        await asyncio.gather(*(self._wake(place, state) for place, state in states))
        if any(state is not Residency.AWAKE for _, state in await self._states(expert)):
            raise BackendError(f"the engine of {expert} did not wake")
        for place, state in states:
            if state in SLEEPS and (others := await self._differing(place)):
                try:
                    await self._of_this_host(expert).stop(expert)
                except BackendError:  # it is somebody else's, or does not end
                    await self._put_to_sleep([place], 1 if state is Residency.SLEEP_1 else 2)
                raise BackendError(
                    f"after {state} {', '.join(others)} on the engine of {expert} answers otherwise than before: its "
                    "weights did not come back"
                )

    async def _wake(self, place: Place, state: Residency) -> None:
        """Weights that were dropped are read again before the memory of the cache is taken, and prompts that were
        cached before are forgotten."""
        if state is Residency.SLEEP_1:
            await self._post(place, "wake_up")
        elif state is Residency.SLEEP_2:
            await self._post(place, "wake_up", {"tags": "weights"})
            await self._post(place, "collective_rpc", body={"method": "reload_weights"})
            await self._post(place, "wake_up", {"tags": "kv_cache"})
            await self._post(place, "reset_prefix_cache")

    async def _differing(self, place: Place) -> list[str]:
        """Models of an engine that answer otherwise than before it slept."""
        known = self._known(place)
        found = await self._fingerprint(place)
        return [name for name, answer in found.items() if name in known and not is_same(known[name], answer)]

    def _known(self, place: Place) -> Fingerprint:
        """What was noted by whoever runs the engine, or here."""
        noted = {} if self._processes is None else self._processes.fingerprint(place.root)
        return {**self._fingerprints.get(place.root, {}), **noted}

    async def _fingerprint(self, place: Place, but: Collection[str] = ()) -> Fingerprint:
        """Of each model that the engine lists; empty for one that answers nothing of `ASKED`."""
        status, listed = await self._ask("GET", place, "v1/models", timeout_s=LOOK_S)
        names = [str(model["id"]) for model in reply_json(listed)["data"]] if status == 200 else []
        return {name: await self._answer(place, name) for name in names if name not in but}

    async def _answer(self, place: Place, model: str) -> dict[str, float]:
        for path, body in ASKED.items():
            status, answer = await self._ask("POST", place, path, body={"model": model, **body}, timeout_s=TRANSITION_S)
            if status == 200:
                return answer_of(answer)
        return {}

    async def _require_version(self, place: Place) -> None:
        """Raises BackendError where an engine is older than the protocol."""
        _, answer = await self._ask("GET", place, "version", timeout_s=LOOK_S)
        found = VERSION.search(answer.decode("utf-8", "replace"))
        if found is None or (int(found[1]), int(found[2])) < OLDEST:
            version = "of an unknown version" if found is None else f"vLLM {found[1]}.{found[2]}"
            raise BackendError(
                f"the engine of {place.expert} is {version}, which may sleep under running requests; allowed with "
                "`enable-sleep-mode`: vLLM 0.32 and newer"
            )

    async def stop(self, expert: str) -> None:
        """Lets running requests end where its engine can be paused, then ends the process. Raises BackendError."""
        processes, asked = self._of_this_host(expert), {"level": "0", "mode": "wait"}
        await asyncio.gather(
            *(
                self._ask("POST", place, "sleep", asked, timeout_s=TRANSITION_S)
                for place, state in await self._states(expert)
                if state is Residency.AWAKE
            )
        )
        await processes.stop(expert)

    async def state(self, expert: str) -> Residency:
        """Asks the engines. One that nobody reaches is stopped or starting, one without sleep mode awake; several of
        which only some are awake answer as one that is, unless others sleep. Raises BackendError."""
        found = {state for _, state in await self._states(expert)}
        if Residency.AWAKE in found and found.isdisjoint(SLEEPS):
            return Residency.AWAKE
        if found & {Residency.AWAKE, Residency.STARTING}:
            return Residency.STARTING
        return next((state for state in reversed(SLEEPS) if state in found), Residency.STOPPED)

    async def _states(self, expert: str) -> list[tuple[Place, Residency]]:
        places = [Place(expert, root) for root in self._urls().get(expert, ())]
        return list(zip(places, await asyncio.gather(*map(self._state, places)), strict=True))

    async def _state(self, place: Place) -> Residency:
        try:
            status, answer = await self._ask("GET", place, "is_sleeping", timeout_s=LOOK_S)
        except BackendError as error:
            if error.status != 503:
                raise
            is_coming = self._processes is not None and self._processes.is_coming(place.root)
            return Residency.STARTING if is_coming else Residency.STOPPED
        if status == 404:
            return Residency.AWAKE
        try:
            is_sleeping = status == 200 and from_json(answer)["is_sleeping"]
        except (ValueError, LookupError, TypeError):
            is_sleeping = None
        if status != 200 or not isinstance(is_sleeping, bool):
            raise BackendError(f"the engine of {place.expert} does not say whether it sleeps (status {status})")
        if not is_sleeping:
            return Residency.AWAKE
        _, metrics = await self._ask("GET", place, "metrics", timeout_s=LOOK_S)
        found = SLEEP_STATE.search(metrics.decode("utf-8", "replace"))
        return STATE_OF.get(found[1], Residency.SLEEP_2) if found else Residency.SLEEP_2

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _desire(self, expert: str, state: Desired) -> None:
        if self._processes is not None:
            self._processes.desire(expert, state)

    def _of_this_host(self, expert: str) -> DesiredProcesses:
        if self._processes is None:
            raise BackendError(f"the engine of {expert} is run by others, who alone start and stop it")
        return self._processes

    async def _post(
        self, place: Place, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, object] | None = None
    ) -> None:
        """Raises BackendError, also for another status than 200."""
        status, _ = await self._ask("POST", place, path, query, body, timeout_s=TRANSITION_S)
        if status == 404:
            raise BackendError(f"the engine of {place.expert} has no sleep mode: it needs `enable-sleep-mode: true`")
        if status != 200:
            raise BackendError(f"the engine of {place.expert} answered {path} with status {status}")

    async def _ask(
        self,
        method: str,
        place: Place,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        *,
        timeout_s: float,
    ) -> tuple[int, bytes]:
        """Status and body. Raises BackendError: 503 where nothing listens, 502 where the connection breaks."""
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        address = URL(place.root.rstrip("/").removesuffix("/v1")) / path
        headers = {"authorization": f"Bearer {key}"} if (key := self._keys.get(place.expert)) else {}
        asked: dict[str, Any] = {"params": query, "json": body, "headers": headers, "allow_redirects": False}
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(method, address, **asked) as response,
            ):
                return response.status, await response.read()
        except aiohttp.ClientConnectorError as error:
            raise BackendError(f"the engine of {place.expert} cannot be reached", status=503) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BackendError(f"the engine of {place.expert} did not answer {path}") from error
