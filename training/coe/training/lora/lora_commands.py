"""The command `coe experts train-lora`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.errors import ConfigError, allowed_values
from coe.base.visible_text import echo
from coe.cli.options import ConfigOption, DataOption, SinceOption, api_key, with_options
from coe.cli.progress import console_progress
from coe.training.lora.lora_options import MAX_QUERIES, AdapterOptions, TrainOptions

if TYPE_CHECKING:
    from coe.training.lora.admission import Candidate
    from coe.training.lora.examples import Example
    from coe.training.lora.serving import Teacher


@with_options
def train_lora(
    name: Annotated[str, typer.Argument(help="name of the new expert")],
    category: Annotated[str, typer.Option("--category", help="category that it is for")],
    *,
    training: TrainOptions,
    options: AdapterOptions,
    since: SinceOption = 0.0,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
) -> list[list[str]]:
    """Train an expert for one category: a LoRA adapter on examples, added if it is surely better than its base."""
    from coe.decision_log.default_database import database_url_of
    from coe.fleet.expert_fingerprint import expert_fingerprint
    from coe.training.lora.admission import candidate_of, train_and_compare
    from coe.training.lora.causal_lm import hide_progress
    from coe.training.lora.examples import logged_prompts, read_examples
    from coe.training.lora.serving import Teacher

    hide_progress()
    candidate = candidate_of(name, category, config, data_dir, options, training.on)
    if training.data is None:
        expert = require_teacher(candidate, training.teacher)
        identity = expert_fingerprint(candidate.config.experts[expert], candidate.folder)
        teacher = Teacher(expert, identity, options.base_url, api_key(), options.max_tokens)
        prompts = logged_prompts(database_url_of(data_dir), category, since, MAX_QUERIES)
        examples = taught_examples(candidate, teacher, prompts)
    else:
        examples = read_examples(training.data, category)
    with console_progress() as progress:
        found = train_and_compare(candidate, examples, training.recipe, options.max_tokens, progress)
    echo(f"{name} against {candidate.base} on {category}: {found}")
    if not found.is_better:
        echo(f"not added: it is not surely better; the adapter is in {candidate.out}")
        raise typer.Exit(1)
    return admit(candidate, options)


def require_teacher(candidate: Candidate, teacher: str | None) -> str:
    """Return the expert that answers; raise ConfigError if it is unknown, or the one that is to learn."""
    others = [name for name in candidate.config.experts if name != candidate.base]
    if teacher not in others:
        raise ConfigError(f"--teacher: '{teacher or ''}' is not another expert{allowed_values(teacher or '', others)}")
    return teacher


def taught_examples(candidate: Candidate, teacher: Teacher, prompts: list[str]) -> list[Example]:
    """Return queries with the teacher's answers; each answer is stored beside the adapter as it arrives."""
    from coe.base.journal import Journal
    from coe.training.lora.examples import Example
    from coe.training.lora.serving import Taught, ask_teacher

    echo(f"{teacher.expert} answers {len(prompts)} queries of {candidate.category} from the log")
    replies = asyncio.run(ask_teacher(teacher, prompts, Journal(candidate.out / "answers.jsonl", Taught)))
    return [Example(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True) if reply.strip()]


def admit(candidate: Candidate, options: AdapterOptions) -> list[list[str]]:
    """Add the expert to experts.yaml and to its engine, unless it was only measured. Return the commands that bring
    it to running gateways and to the map: their packages lie above this one."""
    from coe.training.lora.admission import add_to_engine

    if options.no_add:
        return []
    asyncio.run(add_to_engine(candidate))
    echo(f"added {candidate.name} to {candidate.file}")
    places = ["--config", str(candidate.file), "--data-dir", str(candidate.data_dir)]
    probe = ["experts", "probe", candidate.name, "--base-url", options.base_url, *places]
    probe += ["--categories", candidate.category]
    probe += ["--probes-from", str(options.probes_from)] if options.probes_from else []
    return [["config", "apply", *places], [*probe, *(["--promote"] if options.promote else [])]]
