"""The surfaces by path."""

from __future__ import annotations

from gateway.surfaces.completions import CompletionsSurface
from gateway.surfaces.messages import MessagesSurface
from gateway.surfaces.responses import ResponsesSurface
from gateway.surfaces.surface import ChatSurface, Surface

CHAT = ChatSurface()
SURFACES: dict[str, Surface] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": ResponsesSurface(),
    "/v1/messages": MessagesSurface(),
    "/v1/completions": CompletionsSurface(),
}


def surface_of(path: str) -> Surface:
    """The surface that a path belongs to; chat for what is none."""
    return SURFACES.get(path.removesuffix("/count_tokens"), CHAT)
