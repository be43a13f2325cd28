"""Gathers the pages of the documentation site: every Markdown file of the project where it is, so that links between
them hold, and the pages that are generated from the code.

    python docs/build_site.py FOLDER
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fastapi.routing import APIRoute

from coe.cli.command_line import command_of
from coe.cli.commands import COMMANDS

CHATS = {
    "/v1/chat/completions": "OpenAI's chat completions",
    "/v1/responses": "OpenAI's responses, without storage",
    "/v1/messages": "Anthropic's messages; `/v1/messages/count_tokens` counts",
    "/v1/completions": "OpenAI's completions of a text",
}
ROOT = Path(__file__).resolve().parents[1]
LINKED = ("*.md", "docs/images", "experts.yaml", "deploy", "benchmarks/follow_ups", "LICENSE")
"""Files that pages link to."""


def commands_page() -> str:
    """The help of every command."""
    parts = ["# Commands", "", "`coe --help` lists them; each block below is what `coe COMMAND --help` prints."]
    for name, command in sorted(COMMANDS.items()):
        parts += ["", f"## coe {name}", "", command.summary, "", "```text", help_of(name), "```"]
    return "\n".join(parts) + "\n"


def help_of(name: str) -> str:
    """Output of `coe NAME --help`."""
    command = command_of(name)
    context = command.make_context(f"coe {name}", [], resilient_parsing=True, terminal_width=80, max_content_width=80)
    return str(command.get_help(context)).strip()


def api_page() -> str:
    """Every route of the gateway with the first sentence of its description."""
    from coe.gateway.endpoints.fastapi_app import MODULES
    from coe.gateway.endpoints.status import PLAIN

    said = "A running gateway describes all but chats in `/openapi.json`."
    parts = ["# API", "", said, "", "| call | purpose |", "| --- | --- |"]
    parts += [f"| `POST {path}` | {purpose} |" for path, purpose in CHATS.items()]
    parts += [f"| `GET {path}` | {' '.join((each.answer.__doc__ or '').split())} |" for path, each in PLAIN.items()]
    for route in [each for module in MODULES for each in module.api.routes if isinstance(each, APIRoute)]:
        parts += [f"| `{method} {route.path}` | {first_paragraph(route)} |" for method in sorted(route.methods)]
    return "\n".join(parts) + "\n"


def first_paragraph(route: APIRoute) -> str:
    return " ".join((route.description or "").partition("\n\n")[0].split())


def pages(folder: Path) -> Iterator[tuple[Path, str]]:
    """Generated pages by where they belong."""
    yield folder / "reference" / "commands.md", commands_page()
    yield folder / "reference" / "api.md", api_page()


def gather(folder: Path) -> None:
    """Writes the whole source of the site into a folder, which is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", *LINKED], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    for path, text in pages(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
