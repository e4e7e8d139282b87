"""Which access tokens are good, and how often auth is asked for its keys."""

import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import KeySet
from streamspace_common.testing.clock import FakeClock
from streamspace_common.web.principal import TokenVerifier

USER = "usr-" + "a" * 32


class Auth:
    """Signs tokens and publishes keys, and counts how often it is asked."""

    def __init__(self) -> None:
        self.keys: dict[str, Ed25519PrivateKey] = {}
        self.asked = 0
        self.away = False

    def add_key(self, key_id: str) -> None:
        self.keys[key_id] = Ed25519PrivateKey.generate()

    async def publish(self) -> KeySet:
        self.asked += 1
        if self.away:
            raise ProblemError.of(Code.SERVICE_UNAVAILABLE, "Nobody answers.")
        return KeySet(
            keys=tuple(
                json.loads(OKPAlgorithm.to_jwk(key.public_key())) | {"kid": key_id}
                for key_id, key in self.keys.items()
            )
        )

    def token(
        self, key_id: str = "k1", headers: Mapping[str, Any] | None = None, **claims: Any
    ) -> str:
        now = int(time.time())
        payload = {
            "iss": "streamspace",
            "aud": "streamspace-api",
            "sub": USER,
            "name": "ada",
            "role": "user",
            "iat": now,
            "exp": now + 900,
        } | claims
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(
            payload,
            self.keys[key_id],
            algorithm="EdDSA",
            headers={"kid": key_id} if headers is None else dict(headers),
        )


@pytest.fixture
def auth() -> Auth:
    auth = Auth()
    auth.add_key("k1")
    return auth


@pytest.fixture
def verifier(auth: Auth, clock: FakeClock) -> TokenVerifier:
    return TokenVerifier(
        auth.publish, issuer="streamspace", audience="streamspace-api", clock=clock
    )


async def refuse(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(ProblemError) as refused:
        await verifier.verify(token)
    assert refused.value.problem.code is Code.UNAUTHENTICATED


async def test_a_good_token_names_its_user(auth: Auth, verifier: TokenVerifier) -> None:
    principal = await verifier.verify(auth.token())
    assert (principal.user_id, principal.username, principal.role) == (USER, "ada", Role.USER)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"iss": "somebody"},
        {"aud": "another-api"},
        {"sub": None},
        {"sub": "root"},
        {"role": "god"},
        {"role": None},
        {"name": None},
        {"exp": None},
        {"nbf": 9999999999},
        {"iat": 9999999999},
    ],
)
async def test_a_token_with_wrong_claims_is_refused(
    auth: Auth, verifier: TokenVerifier, claims: dict[str, Any]
) -> None:
    await refuse(verifier, auth.token(**claims))


@pytest.mark.parametrize(
    "token", ["", "x", "a.b.c", "é", "x" * 5000, "..", "eyJhbGciOiJub25lIn0.e30."]
)
async def test_nonsense_is_refused_without_asking_for_keys(
    auth: Auth, verifier: TokenVerifier, token: str
) -> None:
    await refuse(verifier, token)
    assert auth.asked == 0


async def test_a_token_signed_by_another_key_of_that_name_is_refused(
    auth: Auth, verifier: TokenVerifier
) -> None:
    forger = Auth()
    forger.add_key("k1")
    await refuse(verifier, forger.token())


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    auth: Auth, verifier: TokenVerifier
) -> None:
    [public] = (await auth.publish()).keys
    forged = jwt.encode(
        {"sub": USER}, "x" * 32 + json.dumps(public), algorithm="HS256", headers={"kid": "k1"}
    )
    await refuse(verifier, forged)


async def test_a_token_without_a_key_id_is_refused(auth: Auth, verifier: TokenVerifier) -> None:
    await refuse(verifier, auth.token(headers={}))


async def test_keys_are_fetched_once_for_many_tokens(auth: Auth, verifier: TokenVerifier) -> None:
    for _ in range(5):
        await verifier.verify(auth.token())
    assert auth.asked == 1


async def test_a_new_key_is_fetched_when_a_token_names_it(
    auth: Auth, verifier: TokenVerifier, clock: FakeClock
) -> None:
    await verifier.verify(auth.token())
    auth.add_key("k2")
    clock.advance(6)
    await verifier.verify(auth.token("k2"))
    assert auth.asked == 2


async def test_tokens_with_made_up_keys_cause_no_storm(
    auth: Auth, verifier: TokenVerifier, clock: FakeClock
) -> None:
    await verifier.verify(auth.token())
    stranger = Auth()
    stranger.add_key("made-up")
    for _ in range(20):
        await refuse(verifier, stranger.token("made-up"))
    assert auth.asked == 1
    clock.advance(6)
    for _ in range(20):
        await refuse(verifier, stranger.token("made-up"))
    assert auth.asked == 2


async def test_a_withdrawn_key_stops_working(
    auth: Auth, verifier: TokenVerifier, clock: FakeClock
) -> None:
    token = auth.token()
    auth.add_key("k2")
    await verifier.verify(token)
    del auth.keys["k1"]
    clock.advance(301)
    await refuse(verifier, token)


async def test_while_auth_is_away_known_keys_go_on(
    auth: Auth, verifier: TokenVerifier, clock: FakeClock
) -> None:
    await verifier.verify(auth.token())
    auth.away = True
    clock.advance(1000)
    assert (await verifier.verify(auth.token())).username == "ada"


async def test_without_any_key_the_caller_is_told_to_come_back(
    auth: Auth, verifier: TokenVerifier
) -> None:
    auth.away = True
    with pytest.raises(ProblemError) as refused:
        await verifier.verify(auth.token())
    assert refused.value.problem.code is Code.SERVICE_UNAVAILABLE
