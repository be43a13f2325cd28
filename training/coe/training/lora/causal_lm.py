"""A base model with adapters in this process: trained, and asked held-out prompts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from coe.base.errors import ConfigError
from coe.router.config.expert import Engine, ExpertConfig
from coe.router.model_files.weights import file_sha256, resolve_weights
from coe.training.lora.adapter_fit import Recipe, Watch, device, fit, load_adapted_base, save_adapter
from coe.training.lora.dequantize import dequantize
from coe.training.lora.examples import Example

ASKED_AT_ONCE = 16


def hide_progress() -> None:
    """Stop transformers from drawing progress bars of its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def base_folder(expert: str, entry: ExpertConfig, folder: Path, cache: Path) -> Path | str:
    """Return the base's weights for transformers: a folder, or the name on a hub that vLLM loads too. llama.cpp's
    weights are dequantised once, into `cache`, so that an adapter learns around the rounding.

    Raises:
        ConfigError: the expert's engine takes no adapter.
        MissingWeightsError: the weights are not on this machine.
    """
    if entry.engine is Engine.LLAMACPP:
        weights = resolve_weights(entry.model, folder)
        out = cache / f"base-{file_sha256(weights)[:16]}"
        if not (out / "config.json").is_file():
            part = out.with_name(f"{out.name}.part")
            dequantize(weights, part)
            shutil.rmtree(out, ignore_errors=True)
            part.rename(out)
        return out
    if entry.engine is not Engine.VLLM:
        raise ConfigError(f"experts.{expert}: engine '{entry.engine}' takes no adapter; allowed: llamacpp, vllm")
    return resolve_weights(entry.model, folder) if entry.model.startswith((".", "/", "~")) else entry.model


class CausalLm:
    """A model with an adapter, and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    @classmethod
    def trained(
        cls, base: Path | str, examples: Sequence[Example], recipe: Recipe, out: Path, base_name: str, watch: Watch
    ) -> CausalLm:
        """Train an adapter and save it to `out`; raise ValueError if an example is too long."""
        import torch
        from transformers import AutoTokenizer

        # Gradients of what is learned well are so small that denormal numbers made a step six times slower.
        torch.set_flush_denormal(True)
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = load_adapted_base(base, recipe)
        fit(model, tokenizer, examples, recipe, watch)
        save_adapter(model, out, base_name)
        return cls(model, tokenizer)

    def answers(self, prompts: Sequence[str], max_tokens: int, adapter: str | None) -> list[str]:
        """Return the greedy answers (n) of an adapter; None: of the base."""
        import torch

        model, tokenizer = self._model.eval(), self._tokenizer
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        if adapter is not None:
            model.set_adapter(adapter)
        found: list[str] = []
        with torch.inference_mode(), model.disable_adapter() if adapter is None else nullcontext():
            for start in range(0, len(prompts), ASKED_AT_ONCE):
                chats = [[{"role": "user", "content": text}] for text in prompts[start : start + ASKED_AT_ONCE]]
                ids = tokenizer.apply_chat_template(
                    chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
                ).to(device())
                made = model.generate(
                    **ids, max_new_tokens=max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
                )
                found += tokenizer.batch_decode(made[:, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        return found
