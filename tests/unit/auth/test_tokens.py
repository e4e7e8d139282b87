"""Access tokens, and the ages of the keys that sign them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_auth import tokens
from streamspace_auth.domain.accounts import new_user
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.ids import new_user_id

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
LIFETIME = timedelta(minutes=15)
RULES = tokens.KeyRules(rotate_after=timedelta(days=30), token_lifetime=LIFETIME)


def read(token: str, key: tokens.SigningKey, now: datetime) -> dict[str, Any]:
    """As any service that knows the JWKS reads it."""
    public = jwt.PyJWK(tokens.public_jwk(key)).key
    claims: dict[str, Any] = jwt.decode(
        token,
        public,
        algorithms=["EdDSA"],
        audience="streamspace-api",
        issuer="streamspace",
        options={"verify_exp": False, "verify_iat": False},
    )
    if claims["exp"] <= now.timestamp():
        raise jwt.ExpiredSignatureError
    return claims


def test_a_token_tells_who_the_user_is_until_it_expires() -> None:
    key, sign_in = tokens.new_key(NOW, NOW), uuid4()
    user = new_user(new_user_id(), "Ada", role=Role.OPERATOR, now=NOW)
    token = tokens.issue(key, user, sign_in, NOW, LIFETIME)

    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "JWT", "kid": key.kid}
    claims = read(token, key, NOW)
    assert claims.pop("jti")
    assert claims == {
        "iss": "streamspace",
        "aud": "streamspace-api",
        "sub": user.id,
        "name": "Ada",
        "role": "operator",
        "sid": str(sign_in),
        "iat": int(NOW.timestamp()),
        "exp": int((NOW + LIFETIME).timestamp()),
    }
    with pytest.raises(jwt.ExpiredSignatureError):
        read(token, key, NOW + LIFETIME)


def test_another_key_does_not_verify_it() -> None:
    key, other = tokens.new_key(NOW, NOW), tokens.new_key(NOW, NOW)
    user = new_user(new_user_id(), "Ada", role=Role.USER, now=NOW)
    with pytest.raises(jwt.InvalidSignatureError):
        read(tokens.issue(key, user, uuid4(), NOW, LIFETIME), other, NOW)


def test_a_published_key_holds_nothing_private() -> None:
    jwk = tokens.public_jwk(tokens.new_key(NOW, NOW))
    assert set(jwk) == {"kty", "crv", "alg", "use", "kid", "x"}


def test_the_first_key_signs_at_once() -> None:
    assert tokens.plan([], NOW, RULES).make_one_active_from == NOW


def test_a_successor_is_published_before_it_signs() -> None:
    old = tokens.new_key(NOW, NOW)
    end = NOW + RULES.rotate_after
    before = end - tokens.KEY_LEAD
    assert tokens.plan([old], before - timedelta(seconds=1), RULES).make_one_active_from is None
    assert tokens.plan([old], before, RULES).make_one_active_from == end

    new = tokens.new_key(before, end)
    waiting = tokens.plan([old, new], before, RULES)
    assert waiting.signing is old
    assert waiting.published == (old, new)
    assert waiting.make_one_active_from is None
    assert tokens.plan([old, new], end, RULES).signing is new


def test_an_old_key_stays_published_until_its_last_token_died() -> None:
    old = tokens.new_key(NOW, NOW)
    end = NOW + RULES.rotate_after
    new = tokens.new_key(NOW, end)
    last_breath = end + LIFETIME + tokens.CLOCK_LEEWAY
    assert tokens.plan([old, new], last_breath, RULES).published == (old, new)
    gone = tokens.plan([old, new], last_breath + timedelta(seconds=1), RULES)
    assert gone.published == (new,)
    assert gone.forget == (old,)


def test_after_a_long_sleep_the_old_key_signs_until_the_new_one_is_known() -> None:
    old = tokens.new_key(NOW, NOW)
    awake = NOW + timedelta(days=90)
    woken = tokens.plan([old], awake, RULES)
    assert woken.signing is old
    assert woken.make_one_active_from == awake + tokens.KEY_LEAD


def test_a_clock_set_back_does_not_stop_signing() -> None:
    key = tokens.new_key(NOW, NOW)
    back = tokens.plan([key], NOW - timedelta(seconds=5), RULES)
    assert back.signing is key
    assert back.make_one_active_from is None


@given(st.lists(st.integers(1, 40 * 24 * 60), min_size=1, max_size=60))
def test_whenever_it_is_looked_at_every_live_token_can_be_verified(minutes: list[int]) -> None:
    keys: list[tokens.SigningKey] = []
    alive: list[tuple[str, datetime]] = []
    now = NOW
    for step in minutes:
        plan = tokens.plan(keys, now, RULES)
        keys = [key for key in keys if key not in plan.forget]
        if plan.make_one_active_from is not None:
            keys.append(tokens.new_key(now, plan.make_one_active_from))
            plan = tokens.plan(keys, now, RULES)
        alive = [(kid, end) for kid, end in alive if end > now]
        assert {kid for kid, _ in alive} <= {key.kid for key in plan.published}
        assert plan.signing is not None
        assert plan.signing in plan.published
        alive.append((plan.signing.kid, now + LIFETIME))
        now += timedelta(minutes=step)
