"""A category that a running gateway learns to serve without a restart, and one that it may not lose."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp

from tests.gateway.changes.test_running import coe, edit
from tests.gateway.served import end_gateway, start_gateway
from tests.training.trained_folder import make_trained
from tests.waiting import until

RECIPES = [
    "what can I cook with two eggs and some rice",
    "how long does a quiche stay in the oven",
    "a dinner for six without meat, cooked in half an hour",
    "can I replace butter by oil when I bake a sponge cake",
    "how do I keep risotto from sticking when I cook it",
]


async def category_of(client: aiohttp.ClientSession, url: str, text: str) -> str:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    async with client.post(f"{url}/chat/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["x-coe-category"]


async def test_a_new_category_is_served_without_a_restart_and_a_learned_one_cannot_go(tmp_path: Path) -> None:
    folder = make_trained(tmp_path / "composition")
    config = folder / "experts.yaml"
    process, url = await asyncio.to_thread(start_gateway, config, folder / "data")
    try:
        async with aiohttp.ClientSession() as client:
            assert await category_of(client, url, RECIPES[0]) != "recipes"
            edit(config, categories={"recipes": "what to cook, and how"}, examples={"recipes": RECIPES})
            status, said = await asyncio.to_thread(coe, folder, "config", "apply")
            assert status == 0, said
            assert await category_of(client, url, RECIPES[0]) != "recipes", "nothing is learned yet"
            status, said = await asyncio.to_thread(coe, folder, "train")
            assert status == 0, said
            assert "recipes is new" in said

            async def is_served() -> bool:
                return await category_of(client, url, RECIPES[0]) == "recipes"

            await until(is_served, "a query of the new category is served as one")
            before = config.read_text()
            for category in ("recipes", "facts"):
                edit(
                    config,
                    categories={category: None},
                    examples={"recipes": None if category == "recipes" else RECIPES},
                )
                status, said = await asyncio.to_thread(coe, folder, "config", "apply")
                assert status == 1
                assert f"names categories that experts.yaml lacks: {category}; add them or run `coe train`" in said
                assert await category_of(client, url, RECIPES[0]) == "recipes", "the gateway serves as before"
                config.write_text(before)
    finally:
        await asyncio.to_thread(end_gateway, process, signal.SIGTERM)
