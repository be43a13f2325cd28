"""Callers by tokens of an OpenID Connect provider: JWTs whose signature, issuer, audience and times are checked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

from coe.base.extras import require_installed
from coe.base.json_text import from_json
from coe.decision_log.privacy import keyed_hash
from coe.gateway.http_errors import ApiError, no_key, not_now
from coe.gateway.keys.grants import TEAM, Caller, Grant, caller_of
from coe.router.config.gateway import OidcConfig, check_safe_url

if TYPE_CHECKING:
    from jwt import PyJWK

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Of public keys only. With one of a shared secret (HS256) anybody could sign, with the public key as that secret."""

TYPES = ("jwt", "at+jwt")
"""A provider signs more than tokens of access with its keys, e.g. logout tokens, and says so in the head (RFC 8725)."""

LEEWAY_S = 10.0
"""Clocks of a provider and a gateway may differ by so much."""

FRESH_S = 600.0
"""A set of keys is read again when it is older."""

UNKNOWN_KEY_S = 10.0
"""A token with an unknown key id has the set read again, so that a rotation is seen at once, but not more often."""

TIMEOUT = aiohttp.ClientTimeout(total=5.0)
SUBJECT_DIGITS = 16
OIDC = "oidc-"
DISCOVERY = "/.well-known/openid-configuration"

logger = logging.getLogger(__name__)


class Oidc:
    """The provider that experts.yaml names.

    Args:
        team: gives the grant of a team, None of one that nobody has named: its tokens are refused.
        hash_key: of the names that subjects have in the log.
    """

    def __init__(self, config: OidcConfig, team: Callable[[str], Grant | None], hash_key: bytes) -> None:
        require_oidc()
        self._config, self._team, self._hash_key = config, team, hash_key
        self._keys: dict[str, PyJWK] = {}
        self._read_at_s = self._tried_at_s = float("-inf")
        self._reading = asyncio.Lock()

    async def caller(self, token: str) -> Caller:
        """The caller whom a token names.

        Raises:
            ApiError: 401, the token is not one of the provider, is for somebody else, or has expired; 403, its team is
                unknown; 503, the provider's keys cannot be read.
        """
        import jwt

        try:
            head = jwt.get_unverified_header(token)
            if str(head.get("typ", TYPES[0])).lower().removeprefix("application/") not in TYPES:
                raise invalid_token()
            key = await self._key(str(head.get("kid", "")))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # what the token's head says must be the same
                audience=self._config.audience,
                issuer=self._config.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise invalid_token(error) from error
        return self._caller_of(claims)

    def _caller_of(self, claims: Mapping[str, Any]) -> Caller:
        team = claims.get(self._config.team_claim)
        grant = self._team(team) if isinstance(team, str) and TEAM.fullmatch(team) else None
        if not isinstance(team, str) or grant is None or has_ended(grant):
            raise ApiError(
                f"the claim '{self._config.team_claim}' of the token names no team of this gateway",
                status=403,
                code="unknown_team",
            )
        subject = keyed_hash(f"oidc:{self._config.issuer} {claims['sub']}", self._hash_key)[:SUBJECT_DIGITS]
        is_admin = self._config.admin_scope is not None and self._config.admin_scope in scopes_of(claims)
        return caller_of(f"{team}/{OIDC}{subject}", Grant(is_admin=is_admin), grant)

    def known(self, key_id: str) -> Caller | None:
        """The caller of a token of before, without admin scope; None when its team has ended, or it was none."""
        team, _, name = key_id.partition("/")
        grant = self._team(team) if name.startswith(OIDC) else None
        return None if grant is None or has_ended(grant) else caller_of(key_id, Grant(), grant)

    async def _key(self, key_id: str) -> PyJWK:
        """The provider's key of that id. Raises ApiError."""
        if not self._is_known(key_id) and not (key_id in self._keys and self._reading.locked()):
            async with self._reading:
                now = time.monotonic()
                if not self._is_known(key_id) and now - self._tried_at_s > UNKNOWN_KEY_S:
                    self._tried_at_s = now
                    await self._read()
        if not self._keys:
            message = "keys of the identity provider cannot be read now; try again later"
            raise not_now(message, "identity_provider_unavailable")
        if key_id not in self._keys:
            raise invalid_token()
        return self._keys[key_id]

    def _is_known(self, key_id: str) -> bool:
        return key_id in self._keys and time.monotonic() - self._read_at_s < FRESH_S

    async def _read(self) -> None:
        """Reads the set of keys; the one of before stays when that fails."""
        import jwt

        try:
            async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
                found = await read_json(session, self._config.issuer.rstrip("/") + DISCOVERY)
                if found["issuer"] != self._config.issuer:
                    raise ValueError("the discovery document is of another issuer")
                url = check_safe_url(str(found["jwks_uri"]))
                keys = jwt.PyJWKSet.from_dict(await read_json(session, url)).keys
        except (aiohttp.ClientError, TimeoutError, LookupError, TypeError, ValueError, jwt.PyJWTError) as error:
            logger.warning("keys of the identity provider cannot be read (%s)", type(error).__name__)
            return
        public = [key for key in keys if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")]
        self._keys = {str(key.key_id or ""): key for key in public}
        self._read_at_s = time.monotonic()


def require_oidc() -> None:
    """Raises MissingExtraError."""
    require_installed("gateway.oidc", "jwt", "cryptography")


async def read_json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Raises ClientError, TimeoutError, TypeError, ValueError."""
    async with session.get(url, allow_redirects=False, raise_for_status=True) as answer:
        found = from_json(await answer.read(), has_unique_keys=False)
    if not isinstance(found, dict):
        raise TypeError(f"expected an object, got {type(found).__name__}")
    return found


def scopes_of(claims: Mapping[str, Any]) -> list[str]:
    """The claim `scope`, words in a text (RFC 8693), or `scp`, a list of them as some providers have it."""
    found = claims.get("scope", claims.get("scp", ""))
    return found.split() if isinstance(found, str) else [str(each) for each in found]


def has_ended(grant: Grant) -> bool:
    return grant.expires_at is not None and grant.expires_at <= time.time()


def is_token(presented: bytes) -> bool:
    """Returns True for what has the form of a JWT: three parts with dots between."""
    return presented.count(b".") == 2


def invalid_token(error: Exception | None = None) -> ApiError:
    reasons = {"ExpiredSignatureError": "has expired", "InvalidAudienceError": "is for another audience"}
    reason = reasons.get(type(error).__name__, "is not valid here")
    return no_key(f"the token {reason}")
