"""Tokens of an identity provider: whose are let in, and tricks that must not work. Real signatures, a real server."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from coe.base.errors import ConfigError
from coe.gateway.http.auth import Auth
from coe.gateway.http_errors import ApiError
from coe.gateway.keys.grants import Cap, Grant, Measure, Window
from coe.gateway.keys.oidc import Oidc
from coe.router.config.gateway import OidcConfig
from tests.gateway.running import config_of, running
from tests.served_app import app_of, serving

AUDIENCE = "coe"
TEAMS = {
    "acme": Grant(caps=(Cap(measure=Measure.USD, amount=5, window=Window.MONTH),), experts=("ruby",)),
    "gone": Grant(expires_at=1.0),
}
KEY = "correct-horse-battery-staple"


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


FIRST, SECOND, FOREIGN = rsa_key(), rsa_key(), rsa_key()
CURVE = ec.generate_private_key(ec.SECP256R1())


def public_jwk(key: Any, key_id: str, **fields: object) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": key_id, "use": "sig", **fields}


@dataclass
class Provider:
    """An identity provider whose answers a test changes."""

    keys: list[dict[str, Any]] = field(default_factory=lambda: [public_jwk(FIRST, "one"), public_jwk(CURVE, "curve")])
    reads: int = 0
    is_broken: bool = False
    issuer: str = ""
    said: str = ""  # of itself in its discovery document, where that is not true

    async def discovery(self, request: web.Request) -> web.Response:
        return web.json_response({"issuer": self.said or self.issuer, "jwks_uri": f"{self.issuer}/keys"})

    async def jwks(self, request: web.Request) -> web.Response:
        self.reads += 1
        return web.Response(status=500) if self.is_broken else web.json_response({"keys": self.keys})

    def claims(self, **changes: object) -> dict[str, Any]:
        now = int(time.time())
        values = {"iss": self.issuer, "aud": AUDIENCE, "sub": "ann", "team": "acme", "iat": now, "exp": now + 60}
        return {name: value for name, value in {**values, **changes}.items() if value is not None}

    def token(self, key: Any = FIRST, algorithm: str = "RS256", key_id: str = "one", **changes: object) -> str:
        return jwt.encode(self.claims(**changes), key, algorithm, headers={"kid": key_id})


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    routes = {"GET /.well-known/openid-configuration": made.discovery, "GET /keys": made.jwks}
    async with serving(app_of(routes)) as made.issuer:
        yield made


def oidc(provider: Provider, **changes: Any) -> Oidc:
    config = OidcConfig(issuer=provider.issuer, audience=AUDIENCE, admin_scope="coe:admin", **changes)
    return Oidc(config, TEAMS.get, b"k" * 32)


async def test_a_token_gives_the_caller_of_its_team(provider: Provider) -> None:
    checked = oidc(provider)
    for key, algorithm, key_id in ((FIRST, "RS256", "one"), (CURVE, "ES256", "curve")):
        caller = await checked.caller(provider.token(key, algorithm, key_id))
        assert (caller.tenant, caller.is_admin, caller.experts) == ("acme", False, {"ruby"})
        assert [scoped.scope for scoped in caller.caps] == ["acme"], "the caps of its team"
        assert "ann" not in str(caller.key_id)
    again, other = [await checked.caller(provider.token(sub=sub)) for sub in ("ann", "bob")]
    assert again == caller != other
    for scopes in ({"scope": "openid coe:admin"}, {"scp": ["coe:admin"]}):
        assert (await checked.caller(provider.token(**scopes))).is_admin
    assert provider.reads == 1, "keys are kept"


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"exp": 1}, 401, "has expired"),
        ({"exp": time.time() - 60}, 401, "has expired"),
        ({"exp": None}, 401, "is not valid here"),
        ({"nbf": 4e9}, 401, "is not valid here"),
        ({"aud": "another"}, 401, "is for another audience"),
        ({"aud": None}, 401, "is not valid here"),
        ({"iss": "http://elsewhere"}, 401, "is not valid here"),
        ({"iss": None}, 401, "is not valid here"),
        ({"sub": None}, 401, "is not valid here"),
        ({"team": None}, 403, "names no team"),
        ({"team": "rival"}, 403, "names no team"),
        ({"team": "gone"}, 403, "names no team"),
        ({"team": ["acme"]}, 403, "names no team"),
        ({"team": "acme/1"}, 403, "names no team"),
    ],
)
async def test_claims_that_do_not_fit_are_refused(
    provider: Provider, changes: dict[str, object], status: int, said: str
) -> None:
    with pytest.raises(ApiError, match=said) as refused:
        await oidc(provider).caller(provider.token(**changes))
    assert refused.value.status == status


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def unsigned(provider: Provider) -> str:
    return f"{part({'alg': 'none', 'kid': 'one'})}.{part(provider.claims())}."


def signed_with_the_public_key(provider: Provider) -> str:
    """The public key as the secret of HS256, the classic confusion of algorithms."""
    import hashlib
    import hmac

    pem = FIRST.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = f"{part({'alg': 'HS256', 'kid': 'one'})}.{part(provider.claims())}"
    signature = hmac.new(pem, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def with_its_own_key(provider: Provider) -> str:
    """The head brings a key along, which is not to be believed."""
    jwk = public_jwk(FOREIGN, "one")
    return jwt.encode(provider.claims(), FOREIGN, "RS256", headers={"kid": "one", "jwk": jwk, "jku": "http://x/keys"})


def with_other_claims(provider: Provider) -> str:
    head, _, signature = provider.token().split(".")
    return f"{head}.{part(provider.claims(team='rival'))}.{signature}"


FORGERIES: list[Callable[[Provider], str]] = [
    unsigned,
    signed_with_the_public_key,
    with_its_own_key,
    with_other_claims,
    lambda provider: provider.token(FOREIGN),
    lambda provider: provider.token(CURVE, "ES256", "one"),
    lambda provider: provider.token(FIRST, "RS512"),
    lambda provider: provider.token(key_id="two"),
    lambda provider: provider.token(key_id="shared"),
    lambda provider: jwt.encode(provider.claims(), b"s" * 32, "HS256", headers={"kid": "shared"}),
    lambda provider: "a.b.c",
    lambda provider: "..",
]


@pytest.mark.parametrize(
    ("kind", "is_taken"),
    [
        ("JWT", True),
        ("at+jwt", True),
        ("application/at+JWT", True),
        (None, True),
        ("logout+jwt", False),
        ("dpop+jwt", False),
        ("", True),
        (["JWT"], False),
        (1, False),
    ],
)
async def test_a_token_that_says_it_is_something_else_is_refused(
    provider: Provider, kind: object, is_taken: bool
) -> None:
    token = jwt.encode(provider.claims(), FIRST, "RS256", headers={"kid": "one", "typ": kind})
    if is_taken:
        assert (await oidc(provider).caller(token)).tenant == "acme"
        return
    with pytest.raises(ApiError, match="is not valid here"):
        await oidc(provider).caller(token)


@pytest.mark.parametrize("forge", FORGERIES)
async def test_forged_tokens_are_refused(provider: Provider, forge: Callable[[Provider], str]) -> None:
    secret = {"kty": "oct", "kid": "shared", "alg": "HS256", "k": base64.urlsafe_b64encode(b"s" * 32).decode()}
    provider.keys.append(secret)  # a set may hold one, which is for nobody else to know, and for no token of ours
    checked = oidc(provider)
    token = forge(provider)
    with pytest.raises(ApiError) as refused:
        await checked.caller(token)
    assert refused.value.status == 401
    assert token not in str(refused.value)
    assert (await checked.caller(provider.token())).tenant == "acme"


async def test_a_rotation_of_the_providers_keys_is_seen(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = oidc(provider)
    await checked.caller(provider.token())
    provider.keys = [public_jwk(SECOND, "two")]
    new = provider.token(SECOND, key_id="two")
    for _ in range(3):
        with pytest.raises(ApiError):
            await checked.caller(new)
    assert provider.reads == 1, "unknown key ids do not make it read again and again"
    monkeypatch.setattr("coe.gateway.keys.oidc.UNKNOWN_KEY_S", 0.0)
    assert (await checked.caller(new)).tenant == "acme"
    with pytest.raises(ApiError):
        await checked.caller(provider.token())


async def test_while_the_provider_is_away_its_last_keys_count(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, late = oidc(provider), oidc(provider)
    await checked.caller(provider.token())
    provider.is_broken = True
    monkeypatch.setattr("coe.gateway.keys.oidc.FRESH_S", 0.0)
    monkeypatch.setattr("coe.gateway.keys.oidc.UNKNOWN_KEY_S", 0.0)
    assert (await checked.caller(provider.token())).tenant == "acme"
    with pytest.raises(ApiError) as refused:
        await late.caller(provider.token())
    assert refused.value.status == 503


async def test_a_discovery_document_of_another_issuer_is_not_believed(provider: Provider) -> None:
    provider.said = "https://elsewhere"
    with pytest.raises(ApiError) as refused:
        await oidc(provider).caller(provider.token())
    assert (refused.value.status, provider.reads) == (503, 0)


def test_a_caller_of_before_is_known_until_its_team_ends(provider: Provider) -> None:
    checked = oidc(provider)
    assert [checked.known(f"{team}/oidc-0123456789abcdef") is not None for team in ("acme", "gone", "rival")] == [
        True,
        False,
        False,
    ]
    assert checked.known("acme/0123456789ab") is None, "no token had that id"


def test_keys_are_read_over_tls_alone() -> None:
    values = {"issuer": "http://login.example", "audience": "coe"}
    with pytest.raises(ConfigError, match=r"gateway\.oidc\.issuer: 'http://login.example' is not safe; allowed: https"):
        config_of(oidc=values)


async def test_a_gateway_takes_tokens_beside_keys(provider: Provider) -> None:
    checked = oidc(provider)
    async with running(auth=Auth([KEY], oidc=checked)) as gateway:
        bearers = ((provider.token(), 200), (KEY, 200), ("wrong", 401), ("", 401), (provider.token(exp=1), 401))
        for bearer, status in bearers:
            headers = {"authorization": f"Bearer {bearer}"}
            async with gateway.client.get(f"{gateway.gateway.url}/models", headers=headers) as answer:
                assert answer.status == status
                shown = await answer.text()
            assert ("emerald" in shown) == (bearer == KEY), "the team of the token may use ruby alone"


async def test_the_console_takes_the_token_that_a_proxy_sends(provider: Provider) -> None:
    async with running(auth=Auth(oidc=oidc(provider))) as gateway:

        async def page(path: str, token: str) -> int:
            headers, address = {"authorization": f"Bearer {token}"}, f"{gateway.root}/console{path}"
            async with gateway.client.get(address, headers=headers, allow_redirects=False) as answer:
                return answer.status

        assert await page("/experts", provider.token()) == 200
        assert await page("/routers", provider.token()) == 403
        assert await page("/routers", provider.token(scope="coe:admin")) == 200
        assert await page("/", "a.b.c") == 401
