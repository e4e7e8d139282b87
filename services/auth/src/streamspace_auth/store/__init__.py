"""Identities in PostgreSQL: the rows, and the units of work the handlers ask for."""

from streamspace_auth.store.database import AuthStore, SealedKey, SigningKeyRows

__all__ = ["AuthStore", "SealedKey", "SigningKeyRows"]
