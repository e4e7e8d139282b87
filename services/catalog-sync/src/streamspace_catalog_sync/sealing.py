"""Catalog tokens at rest: AES-256-GCM under a key from the settings.

The catalog's id is bound in as associated data, so a sealed token copied to another
catalog's row, with another host to be sent to, does not open.
"""

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from streamspace_catalog_sync.ports import SealError
from streamspace_common.contracts.ids import CatalogId

_NONCE: Final = 12
_PURPOSE: Final = b"streamspace catalog token v1"


class TokenVault:
    """Seals with the key of the settings; without one it takes no tokens."""

    def __init__(self, key: SecretStr | None) -> None:
        self._cipher = AESGCM(_derive(key)) if key is not None else None

    def seal(self, catalog: CatalogId, token: SecretStr) -> bytes:
        """A token as it may be stored.

        Raises:
            SealError: there is no key.
        """
        if self._cipher is None:
            raise SealError(
                "This installation cannot keep tokens: "
                "STREAMSPACE_CATALOG_SYNC_TOKEN_KEY is not set."
            )
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(
            nonce, token.get_secret_value().encode(), catalog.encode()
        )

    def open(self, catalog: CatalogId, sealed: bytes) -> SecretStr:
        """The token that was sealed for this catalog.

        Raises:
            SealError: there is no key, or it is another one than the token was sealed with.
        """
        if self._cipher is None:
            raise SealError(
                "The catalog has a stored token, but STREAMSPACE_CATALOG_SYNC_TOKEN_KEY is not set."
            )
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], catalog.encode())
        except InvalidTag as error:
            raise SealError(
                "The stored token does not open with STREAMSPACE_CATALOG_SYNC_TOKEN_KEY. "
                "Set the key it was stored with, or remove the catalog and add it again."
            ) from error
        return SecretStr(plain.decode())


def _derive(key: SecretStr) -> bytes:
    # The setting is any long random text; this makes exactly 256 bits of it.
    derived: bytes = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(
        key.get_secret_value().encode()
    )
    return derived
