"""`coe deploy render`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coe.cli import options

if TYPE_CHECKING:
    from coe.router.config.composition import CoeConfig

COE_IMAGE = "coe"
VLLM_IMAGE = "docker.io/vllm/vllm-openai:v0.32.0"


def own_addresses(config: CoeConfig) -> list[str]:
    """The keys of addresses, of experts and of encoders, that are loopback ones."""
    from urllib.parse import urlsplit

    from coe.gateway.http.listener import is_loopback

    urls: dict[str, tuple[object, ...]] = {f"experts.{name}.url": entry.roots for name, entry in config.experts.items()}
    urls |= {f"{key}.url": (plugin.options.get("url"),) for key, (_, plugin) in config.every_plugin.items()}
    return [
        key for key, named in urls.items() if any(is_loopback(urlsplit(str(url or "")).hostname or "") for url in named)
    ]


def render(
    target: Annotated[Literal["compose", "kubernetes"], typer.Option("--target", help="platform to run it on")],
    out: Annotated[Path, typer.Option("--out", help="folder to write; files of an earlier call are replaced")],
    config: options.ConfigOption = Path("experts.yaml"),
    image: Annotated[str, typer.Option("--image", help="image of the gateway, as deploy/Containerfile builds it")] = (
        COE_IMAGE
    ),
) -> None:
    """Write files that start the composition of experts.yaml with Docker Compose or on Kubernetes."""
    import shutil

    from coe.base.visible_text import echo
    from coe.gateway.deploy.deployment import Target, plan_deployment, rendered

    options.require_folder(out)
    deployment = plan_deployment(config, image=image, vllm_image=VLLM_IMAGE)
    for name, text in rendered(deployment, Target(target)).items():
        file = out / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        echo(f"wrote {file}")
    for key in own_addresses(deployment.config):
        echo(
            f"note: {key} is an address of this machine, and in a container that is the container: write "
            "how it is reached from there",
            to_stderr=True,
        )
    for name, folder in deployment.adapters.items():
        shutil.copytree(folder, out / "adapters" / name, dirs_exist_ok=True)
        echo(f"wrote {out / 'adapters' / name}")
