"""The only file of retrieval that touches torch: a LoRA on the query side of a sentence-transformers BERT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from coe.retrieval.adaptable import LINEAR
from coe.retrieval.training.recipe import Recipe
from coe.router.types import FloatArray

TARGETS = rf".*encoder\.layer\.\d+\.({'|'.join(name.replace('.', chr(92) + '.') for name in LINEAR)})"
"""The products of every layer, but not the pooler's, which sentence-transformers does not use."""


class QueryAdapter:
    """Trainable queries. Calls are deterministic for a seed: dropout is drawn again from (seed, step)."""

    def __init__(self, model_folder: Path, recipe: Recipe, pooling: str) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from sentence_transformers import SentenceTransformer

        torch.manual_seed(recipe.seed)
        transformer = SentenceTransformer(str(model_folder), device="cpu")[0]
        self._recipe, self._pooling = recipe, pooling
        self._tokenizer = transformer.tokenizer
        settings = LoraConfig(
            r=recipe.r, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=TARGETS, bias="none"
        )
        self._model: Any = get_peft_model(transformer.auto_model, settings)
        self._trained = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(self._trained.values(), lr=recipe.learning_rate)

    def forward(self, texts: Sequence[str]) -> Any:
        """(n, d) unit rows, with gradients."""
        import torch

        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._recipe.max_query_tokens, return_tensors="pt"
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._recipe.precision == "bfloat16"):
            hidden = self._model(**tokens)[0].float()
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = hidden[:, 0] if self._pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1)

    def encode(self, texts: Sequence[str], strength: float = 1.0, batch: int = 64) -> FloatArray:
        """(n, d) float32 without dropout, by that share of the adapter."""
        with self._scaled(strength):
            return self._encode(texts, batch)

    @contextmanager
    def _scaled(self, strength: float) -> Iterator[None]:
        layers = [module for module in self._model.modules() if isinstance(getattr(module, "scaling", None), dict)]
        scalings = [dict(layer.scaling) for layer in layers]
        for layer in layers:
            layer.scaling.update({name: value * strength for name, value in layer.scaling.items()})
        try:
            yield
        finally:
            for layer, scaling in zip(layers, scalings, strict=True):
                layer.scaling.update(scaling)

    def _encode(self, texts: Sequence[str], batch: int) -> FloatArray:
        import torch

        self._model.eval()
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors: FloatArray | None = None
        with torch.no_grad():
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                part = self.forward([texts[row] for row in rows]).numpy()
                vectors = np.zeros((len(texts), part.shape[1]), np.float32) if vectors is None else vectors
                vectors[rows] = part
        return np.zeros((0, 0), np.float32) if vectors is None else vectors

    def step(
        self,
        number: int,
        rate: float,
        texts: Sequence[str],
        candidates: FloatArray,
        wrong: np.ndarray,
        right: np.ndarray,
    ) -> float:
        """One step on the cross entropy of each query's relevant document among the candidates; the loss.

        Args:
            candidates: (c, d) frozen document vectors.
            wrong: (n, c) True where a candidate counts as a negative or is the target.
            right: (n,) column of each query's document.
        """
        import torch

        self._model.train()
        torch.manual_seed(self._recipe.seed * 1_000_003 + number)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        logits = self.forward(texts) @ torch.from_numpy(candidates).T / self._recipe.temperature
        logits = logits.masked_fill(~torch.from_numpy(wrong), float("-inf"))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(right))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def weights(self, strength: float = 1.0) -> dict[str, FloatArray]:
        """A copy of the adapter's arrays by torch's names; a share of the adapter is one of each second factor."""
        return {
            name: p.detach().numpy() * np.float32(strength if "lora_B" in name else 1)
            for name, p in self._trained.items()
        }

    def set_weights(self, arrays: dict[str, FloatArray]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(torch.from_numpy(arrays[name]))

    def save_peft(self, folder: Path) -> None:
        """PEFT's two files."""
        self._model.save_pretrained(str(folder), save_embedding_layers=False)
