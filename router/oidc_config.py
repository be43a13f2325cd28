"""An identity provider, as `gateway.oidc` of experts.yaml names it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from router.section import Section


def check_safe_url(url: str) -> str:
    """Refuses plain http to other machines: a change of the keys on their way would let anybody in."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(f"'{url}' is not safe; allowed: https://..., or http:// on this machine")
    return url


SafeUrl = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(check_safe_url)]


class OidcConfig(Section):
    """An OpenID Connect provider whose tokens (JWTs with a public-key signature) are taken beside keys."""

    issuer: SafeUrl = Field(description="the claim `iss`, and where its discovery document is")
    audience: str = Field(min_length=1, description="what the claim `aud` must contain")
    jwks_url: SafeUrl | None = Field(default=None, description="its keys; None: as discovered")
    team_claim: str = Field(default="team", min_length=1, description="the claim that names the team")
    admin_scope: str | None = Field(default=None, min_length=1, description="the scope that gives admin rights")
