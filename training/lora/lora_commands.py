"""`coe experts train-lora` and `coe experts merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.options import ConfigOption, DatabaseOption, DataOption, KeyOption, SeedOption, SinceOption
from base.progress import console_progress
from base.visible_text import echo

if TYPE_CHECKING:
    from training.lora.admission import Candidate
    from training.lora.examples import Example
    from training.lora.serving import Teacher

GatewayOption = Annotated[str, typer.Option("--base-url", help="API root of the running gateway")]
OnOption = Annotated[
    str | None, typer.Option("--on", metavar="EXPERT", help="expert whose weights it extends; default: the only one")
]
AnswersOption = Annotated[
    str | None,
    typer.Option("--answers", metavar="KIND", help="kind of answers; default: experts.yaml's, or text"),
]
TokensOption = Annotated[int, typer.Option("--max-tokens", min=1, max=2048, help="longest answer")]
NoAddOption = Annotated[bool, typer.Option("--no-add", help="train and measure only")]
ProbesOption = Annotated[
    Path | None, typer.Option("--probes-from", help="folder or file of probes for the map; default: our own")
]
PromoteOption = Annotated[bool, typer.Option("--promote", help="make the router with it on the map live at once")]
OutOption = Annotated[Path | None, typer.Option("--out", help="folder of the adapter; default: DATA/lora/NAME")]
LONGEST_TOKENS = 1024
"""Of an example with its prompt."""

GATEWAY = "http://127.0.0.1:8000/v1"


def train_lora(
    name: Annotated[str, typer.Argument(help="name of the new expert")],
    category: Annotated[str, typer.Option("--category", help="category that it is for")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="JSON lines with `text` and `answer`; default: queries of the log, see --teacher"),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="EXPERT", help="expert that answers the queries of the log")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="queries of the log, the newest first")] = 2000,
    since: SinceOption = 0.0,
    on: OnOption = None,
    answers: AnswersOption = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="of 16 examples each")] = 100,
    rank: Annotated[int, typer.Option("--rank", min=1, max=256, help="of the adapter")] = 4,
    seed: SeedOption = 0,
    max_tokens: TokensOption = 128,
    out: OutOption = None,
    no_add: NoAddOption = False,
    probes_from: ProbesOption = None,
    promote: PromoteOption = False,
    base_url: GatewayOption = GATEWAY,
    api_key: KeyOption = None,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    database_url: DatabaseOption = None,
) -> list[list[str]]:
    """Train an expert for one category: a LoRA adapter on examples, added where it is surely better than its base."""
    from decision_log.default_database import default_database_url
    from training.lora.adapter_fit import Recipe
    from training.lora.admission import candidate_of, learn
    from training.lora.causal_lm import require_torch

    require_torch()
    candidate = candidate_of(name, category, config, data_dir, on=on, answers=answers, out=out)
    if data is None:
        from training.lora.examples import logged_prompts
        from training.lora.serving import Teacher

        asked = Teacher(known_teacher(candidate, teacher), base_url, api_key, max_tokens)
        prompts = logged_prompts(database_url or default_database_url(data_dir), category, since, most)
        examples = taught_examples(candidate, asked, prompts)
    else:
        from training.lora.examples import read_examples

        examples = read_examples(data, category)
    warm_up = min(Recipe().warmup_steps, steps // 5)
    recipe = Recipe(seed, steps, rank=rank, alpha=2 * rank, warmup_steps=warm_up, max_tokens=LONGEST_TOKENS)
    with console_progress() as progress:
        found = learn(candidate, examples, recipe, max_tokens, progress)
    echo(f"{name} against {candidate.base} on {category}: {found}")
    if not found.is_better:
        echo(f"not added: it is not surely better; the adapter is in {candidate.out}")
        raise typer.Exit(1)
    return [] if no_add else admit(candidate, probes_from, base_url, api_key, promote=promote)


def known_teacher(candidate: Candidate, teacher: str | None) -> str:
    """The expert that answers. Raises ConfigError where it is none, or the one that is to learn."""
    from base.errors import ConfigError, allowed_values

    others = [name for name in candidate.config.experts if name != candidate.base]
    if teacher not in others:
        raise ConfigError(f"--teacher: '{teacher or ''}' is not another expert{allowed_values(teacher or '', others)}")
    return teacher


def taught_examples(candidate: Candidate, teacher: Teacher, prompts: list[str]) -> list[Example]:
    """Queries with the teacher's answers, which are also kept beside the adapter."""
    import asyncio

    from training.lora.examples import Example, write_examples
    from training.lora.serving import taught

    echo(f"{teacher.expert} answers {len(prompts)} queries of {candidate.category} from the log")
    replies = asyncio.run(taught(teacher, prompts))
    examples = [Example(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True) if reply.strip()]
    candidate.out.mkdir(parents=True, exist_ok=True)
    write_examples(candidate.out / "examples.jsonl", examples)
    return examples


def merge(
    names: Annotated[list[str], typer.Argument(metavar="EXPERT...", help="experts with adapters on the same weights")],
    into: Annotated[str, typer.Option("--into", metavar="NAME", help="name of the merged expert")],
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="EXPERT=FILE", help="examples of what an expert is for; one for each"),
    ],
    density: Annotated[
        float, typer.Option("--density", min=0.01, max=1.0, help="share of each adapter's weights that is kept")
    ] = 0.5,
    loss: Annotated[
        float, typer.Option("--loss", min=0.0, max=1.0, help="most of its score that any of them may surely lose")
    ] = 0.05,
    answers: AnswersOption = None,
    max_tokens: TokensOption = 128,
    out: OutOption = None,
    no_add: NoAddOption = False,
    probes_from: ProbesOption = None,
    promote: PromoteOption = False,
    base_url: GatewayOption = GATEWAY,
    api_key: KeyOption = None,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
) -> list[list[str]]:
    """Merge rarely used adapters into one, measured before and after; it is added unless one of them loses too much."""
    from training.lora.admission import candidate_of, merged_scores
    from training.lora.causal_lm import require_torch

    require_torch()
    files = files_of(names, data)
    candidate = candidate_of(into, None, config, data_dir, on=names[0], answers=answers, out=out)
    with console_progress() as progress:
        scores = merged_scores(candidate, files, density, max_tokens, progress)
    for name, found in scores.items():
        echo(f"{into} instead of {name}: {found}")
    if losing := [name for name, found in scores.items() if found.interval[0] < -loss]:
        echo(
            f"not added: the score of {', '.join(losing)} may fall by more than {loss:.0%}; "
            f"the adapter is in {candidate.out}"
        )
        raise typer.Exit(1)
    if no_add:
        return []
    commands = admit(candidate, probes_from, base_url, api_key, promote=promote)
    echo(f"once the map sends their queries to {into}, remove {', '.join(names)} from {config}")
    return commands


def files_of(names: list[str], data: list[str]) -> dict[str, Path]:
    """Example file of each expert. Raises ConfigError."""
    from base.errors import ConfigError

    files = {name: Path(file) for name, _, file in (each.partition("=") for each in data)}
    if len(set(names)) < 2 or set(files) != set(names):
        raise ConfigError(f"--data: one EXPERT=FILE for each of two experts or more; got {', '.join(data)}")
    return files


def admit(
    candidate: Candidate, probes_from: Path | None, base_url: str, api_key: str | None, *, promote: bool
) -> list[list[str]]:
    """Adds the expert to experts.yaml and to its engine. Returns the commands that bring it to running gateways and to
    the map: their rooms lie above this one."""
    import asyncio

    from training.lora.admission import add_to_engine

    asyncio.run(add_to_engine(candidate))
    echo(f"added {candidate.name} to {candidate.file}")
    places = ["--config", str(candidate.file), "--data-dir", str(candidate.data_dir)]
    probe = ["experts", "probe", candidate.name, "--base-url", base_url, *places]
    probe += ["--api-key", api_key] if api_key else []
    probe += ["--categories", candidate.category] if candidate.category else []
    probe += ["--probes-from", str(probes_from)] if probes_from else []
    return [["config", "apply", *places], [*probe, *(["--promote"] if promote else [])]]
