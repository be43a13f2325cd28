"""The training of a base's query side on the queries of a collection; the base's document vectors stay.

It is the only module of retrieval that imports torch. sentence-transformers trains a LoRA (Hu et al. 2021), which is
merged into the weights, so that the result is a model folder like the base's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coe.base.errors import DataError
from coe.retrieval.training.collection import Collection, Queries
from coe.retrieval.training.held_out import seen_queries
from coe.retrieval.training.ndcg import CUT, ndcg, rank
from coe.router.types import FloatArray

RANK, ALPHA, DROPOUT, TEMPERATURE, BATCH, WARM_UP = 8, 32, 0.1, 0.05, 32, 0.1
"""Hyperparameters of RouterRetriever (arXiv 2409.02685, section 4)."""

LEARNING_RATE, EPOCHS, MOST_STEPS = 1e-3, 20, 400
"""Learning rate, ten times that of RouterRetriever, whose training is far longer, with the largest epochs and steps."""

LOOK_EVERY, PATIENCE = 25, 4
"""Steps between two evaluations on dev queries, and evaluations without a better nDCG@10 before training stops."""

MOST_DEV = 200
"""Largest number of dev queries in an evaluation."""

STRENGTHS = (1.0, 0.6, 0.3)
"""Shares of the change that an evaluation tries: one in between may beat base and change (Wortsman et al. 2022)."""

MAX_QUERY_TOKENS = 256


class Look(NamedTuple):
    """An evaluation: nDCG@10 of dev queries under the whole change, and the best value of any evaluation and share."""

    step: int
    dev: float
    best: float


@dataclass(frozen=True)
class Corpus:
    """A collection to train on: queries that may be seen, dev queries, and documents as base vectors (D, d)."""

    collection: Collection
    seen: Queries
    dev: Queries
    documents: FloatArray

    def dev_score(self, vectors: FloatArray) -> float:
        """Return nDCG@10 of the dev queries by their vectors (n, d)."""
        found = [rank(row, self.collection.document_ids, CUT) for row in vectors @ self.documents.T]
        return float(ndcg(found, self.dev.grades).mean())


def prepare(collection: Collection, documents: FloatArray) -> Corpus:
    """Return the corpus of a collection; raise DataError if it has no query to train on or no dev query."""
    train, dev = collection.split("train"), collection.split("dev")
    seen = seen_queries(train)
    if not len(seen) or not len(dev):
        raise DataError(
            f"{collection.name}: needs train queries that the pilot library leaves, and dev queries; it has "
            f"{len(seen)} of {len(train)}, and {len(dev)}"
        )
    return Corpus(collection, seen, dev.take(list(range(min(len(dev), MOST_DEV)))), documents)


def train_queries(
    corpus: Corpus, base: Path, out: Path, *, seed: int, on_look: Callable[[Look], None]
) -> tuple[float, float]:
    """Train, and write the best model to `out`; it equals the base if none was better.

    Returns:
        Dev nDCG@10 of that model, and of the base.

    Raises:
        MissingExtraError: torch, sentence-transformers or peft is not installed.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from transformers import TrainerCallback

    torch.manual_seed(seed)
    model = SentenceTransformer(str(base), device="cpu")
    model.max_seq_length = MAX_QUERY_TOKENS
    settings = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules="all-linear")
    run = Run(model, get_peft_model(model[0].auto_model, settings), corpus, on_look)
    base_score = run.best

    class Looks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % LOOK_EVERY == 0 or state.global_step == state.max_steps:
                run.look(state.global_step)
            control.should_training_stop |= run.stale_looks >= PATIENCE

    with tempfile.TemporaryDirectory() as scratch:
        arguments = Arguments(
            output_dir=scratch,
            max_steps=min(MOST_STEPS, EPOCHS * -(-len(corpus.seen) // BATCH)),
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=WARM_UP,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        rows = {"query": list(corpus.seen.texts), "label": list(range(len(corpus.seen)))}
        loss = corpus_loss(model, corpus)
        SentenceTransformerTrainer(
            model, arguments, train_dataset=Dataset.from_dict(rows), loss=loss, callbacks=[Looks()]
        ).train()
    run.write(out)
    return run.best, base_score


def corpus_loss(model: Any, corpus: Corpus) -> Any:
    """Return a loss module: the cross entropy of each relevant document among irrelevant ones, averaged by query."""
    import torch

    documents = torch.from_numpy(np.ascontiguousarray(corpus.documents.T))
    relevant = [list(grades) for grades in corpus.seen.grades]

    class Loss(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model  # the trainer optimises the parameters of the loss

        def forward(self, features: Sequence[Any], labels: Any) -> Any:
            queries = torch.nn.functional.normalize(model(features[0])["sentence_embedding"], dim=1)
            logits = queries @ documents / TEMPERATURE
            is_right = torch.zeros_like(logits, dtype=torch.bool)
            for row, query in enumerate(labels.tolist()):
                is_right[row, relevant[query]] = True
            others = logits.masked_fill(is_right, float("-inf")).logsumexp(dim=1, keepdim=True)
            losses = torch.nn.functional.softplus(others - logits) * is_right
            return (losses.sum(dim=1) / is_right.sum(dim=1)).mean()

    return Loss()


class Run:
    """The best of a training so far. The base counts as an evaluation, so a change that never helps stays at 0.

    Args:
        adapted: the network of `model` with its LoRA, by peft.
    """

    def __init__(self, model: Any, adapted: Any, corpus: Corpus, on_look: Callable[[Look], None]) -> None:
        self._model, self._adapted, self._corpus, self._on_look = model, adapted, corpus, on_look
        self.best, self.share, self.stale_looks = self._score(0.0), 0.0, 0
        self._weights = self._copied()

    def look(self, step: int) -> None:
        scores = {share: self._score(share) for share in STRENGTHS}
        share = max(scores, key=scores.__getitem__)
        if scores[share] > self.best:
            self.best, self.share, self.stale_looks, self._weights = scores[share], share, 0, self._copied()
        else:
            self.stale_looks += 1
        self._on_look(Look(step, scores[1.0], self.best))

    def write(self, out: Path) -> None:
        """Write the model with its LoRA merged into the weights."""
        from peft import set_peft_model_state_dict
        from peft.helpers import rescale_adapter_scale

        set_peft_model_state_dict(self._adapted, self._weights)
        with rescale_adapter_scale(self._adapted, self.share):
            self._adapted.merge_and_unload()
        self._model.save(str(out), create_model_card=False)

    def _score(self, share: float) -> float:
        from peft.helpers import rescale_adapter_scale

        is_training = self._model.training
        with rescale_adapter_scale(self._adapted, share):
            vectors = self._model.encode(
                list(self._corpus.dev.texts), normalize_embeddings=True, show_progress_bar=False
            )
        self._model.train(is_training)
        return self._corpus.dev_score(vectors)

    def _copied(self) -> dict[str, Any]:
        from peft import get_peft_model_state_dict

        return {name: array.clone() for name, array in get_peft_model_state_dict(self._adapted).items()}
