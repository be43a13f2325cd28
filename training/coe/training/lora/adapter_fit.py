"""The fit of a LoRA adapter to prompts and their answers, as for the shipped experts.

The base model's own chat template tokenises the prompt, with the user message alone. The tokens equal those of the
embedded engine for a chat completion with one user message (compared with its `/apply-template` and `/tokenize`). Only
the answer and its end mark carry a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IGNORED = -100  # the target that torch's cross entropy leaves out
LOGGED_STEPS = 20

Watch = Callable[[int, float], None]
"""The type of a function called every 20 steps with the number of steps and the mean loss of the last 20."""


class Answered(Protocol):
    """The interface of a user message and the answer to learn."""

    @property
    def prompt(self) -> str: ...

    @property
    def answer(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings that, with the package versions, decide the weights. `lr` is the peak of the schedule."""

    seed: int = 0
    steps: int = 300
    batch_size: int = 16
    lr: float = 2e-3
    warmup_steps: int = 20
    rank: int = 4
    alpha: int = 8
    max_tokens: int = 160


def encode_example(tokenizer: Any, example: Answered) -> dict[str, list[int]]:
    """Return the token ids of prompt, answer and end mark; those of the prompt are not targets."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": example.prompt}], add_generation_prompt=True, return_dict=False
    )
    answer = [*tokenizer(example.answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    ids = [*prompt, *answer]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [IGNORED] * len(prompt) + answer}


def device() -> str:
    """Return `cuda` if torch has a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_adapted_base(base: Path | str, recipe: Recipe, start: Path | None = None) -> Any:
    """Load the base in bfloat16 with float32 adapter weights on every projection, fresh or those of `start`."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(recipe.seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).to(device())
    if start is not None:
        return PeftModel.from_pretrained(model, start, is_trainable=True)
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def fit(model: Any, tokenizer: Any, examples: Sequence[Answered], recipe: Recipe, watch: Watch) -> float:
    """Train the adapter's weights; return the mean loss of the last steps. The learning rate warms up, then falls as a
    cosine to a twentieth of its peak.

    Raises:
        ValueError: an example is longer than `recipe.max_tokens`.
    """
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    rows = [encode_example(tokenizer, example) for example in examples]
    longest = max(len(row["input_ids"]) for row in rows)
    if longest > recipe.max_tokens:
        raise ValueError(f"an example has {longest} tokens, at most {recipe.max_tokens} are allowed")
    losses: list[float] = []

    def on_log(_: Any, arguments: Any, state: Any, control: Any, logs: dict[str, float], **more: Any) -> None:
        if "loss" in logs:
            losses.append(logs["loss"])
            watch(state.global_step, logs["loss"])

    tokenizer.padding_side, tokenizer.pad_token = "right", tokenizer.pad_token or tokenizer.eos_token
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.lr,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.05},
            warmup_steps=recipe.warmup_steps,
            logging_steps=min(LOGGED_STEPS, recipe.steps),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=recipe.seed,
        )
        collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)
        watching = type("Watching", (TrainerCallback,), {"on_log": on_log})()
        trainer = Trainer(model, arguments, collator, rows, callbacks=[watching])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return losses[-1]


def save_adapter(model: Any, out: Path, base_model: str) -> None:
    """Write PEFT's two files, weights in float16, without the local path of the base."""
    import torch

    model.peft_config["default"].base_model_name_or_path = base_model
    for key, weight in model.named_parameters():
        if "lora_" in key:
            weight.data = weight.data.to(torch.float16)
    model.peft_config["default"].target_modules = sorted(model.peft_config["default"].target_modules)
    model.save_pretrained(out, save_embedding_layers=False, selected_adapters=["default"])
    (out / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
