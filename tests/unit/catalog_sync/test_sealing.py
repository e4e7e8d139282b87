"""Tokens at rest."""

import pytest
from pydantic import SecretStr

from streamspace_catalog_sync.ports import SealError
from streamspace_catalog_sync.sealing import TokenVault
from streamspace_common.contracts.ids import CatalogId

KEY = SecretStr("a-key-of-more-than-thirty-two-characters")
TOKEN = SecretStr("glpat-token")
LAB = CatalogId("lab")


def test_a_sealed_token_opens_again_and_does_not_show() -> None:
    sealed = TokenVault(KEY).seal(LAB, TOKEN)
    assert b"glpat" not in sealed
    assert TokenVault(KEY).open(LAB, sealed) == TOKEN


def test_sealing_twice_gives_different_bytes() -> None:
    vault = TokenVault(KEY)
    assert vault.seal(LAB, TOKEN) != vault.seal(LAB, TOKEN)


def test_a_token_does_not_open_for_another_catalog() -> None:
    vault = TokenVault(KEY)
    with pytest.raises(SealError):
        vault.open(CatalogId("other"), vault.seal(LAB, TOKEN))


@pytest.mark.parametrize("key", [None, SecretStr("another-key-of-more-than-32-characters")])
def test_a_token_does_not_open_with_another_key_or_none(key: SecretStr | None) -> None:
    with pytest.raises(SealError):
        TokenVault(key).open(LAB, TokenVault(KEY).seal(LAB, TOKEN))


def test_without_a_key_no_token_is_taken() -> None:
    with pytest.raises(SealError, match="TOKEN_KEY is not set"):
        TokenVault(None).seal(LAB, TOKEN)
