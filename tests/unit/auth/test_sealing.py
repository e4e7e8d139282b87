"""Sealed secrets open only with their key, at their place, untouched."""

from collections.abc import Callable

import pytest

from streamspace_auth.sealing import Seal, SealError

KEY = bytes(range(32))


def test_what_was_sealed_can_be_opened_and_does_not_show() -> None:
    sealed = Seal(KEY).close(b"the seed", "kid-1")
    assert b"the seed" not in sealed
    assert Seal(KEY).open(sealed, "kid-1") == b"the seed"
    assert Seal(KEY).close(b"the seed", "kid-1") != sealed


@pytest.mark.parametrize(
    ("key", "place", "touch"),
    [
        (bytes(32), "kid-1", bytes),
        (KEY, "kid-2", bytes),
        (KEY, "kid-1", lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (KEY, "kid-1", lambda sealed: b"\x02" + sealed[1:]),
        (KEY, "kid-1", lambda sealed: sealed[:5]),
        (KEY, "kid-1", lambda _: b""),
    ],
)
def test_anything_else_is_refused(key: bytes, place: str, touch: Callable[[bytes], bytes]) -> None:
    sealed = Seal(KEY).close(b"the seed", "kid-1")
    with pytest.raises(SealError):
        Seal(key).open(touch(sealed), place)
