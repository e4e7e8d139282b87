"""Encrypts what the database must not be able to tell: AES-256-GCM, bound to its place."""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_NONCE_BYTES = 12


class SealError(Exception):
    """It was sealed with another key, or for another place, or was tampered with."""


class Seal:
    """Seals small secrets with one 32-byte key.

    `place` (a key's id, say) is authenticated but not kept: moved to another row, a
    sealed secret does not open.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def close(self, secret: bytes, place: str) -> bytes:
        """Version, nonce, and ciphertext with its tag."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """The secret again.

        Raises:
            SealError: it cannot be opened with this key at this place.
        """
        nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if sealed[:1] != _VERSION or len(nonce) != _NONCE_BYTES:
            raise SealError("not in a form this version knows")
        try:
            return self._cipher.decrypt(nonce, ciphertext, place.encode())
        except InvalidTag:
            raise SealError("the encryption key is not the one it was sealed with") from None
