"""The signing keys, kept in the database for all replicas and in memory for signing.

`tokens.plan` decides, this module does: `refresh` brings the memory in line with the
database and makes or forgets keys when the plan says so, one replica at a time.
While the database is away signing goes on with what is in memory.
"""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from streamspace_auth import tokens
from streamspace_auth.sealing import Seal, SealError
from streamspace_auth.store import AuthStore, SealedKey, SigningKeyRows
from streamspace_auth.tokens import KeyRules, SigningKey
from streamspace_common.contracts.identity import User
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.requests import KeySet
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.supervisor import FatalError

log = get_logger(__name__)

REFRESH_EVERY = 60.0
"""Seconds. Far less than `tokens.KEY_LEAD`: each replica knows a key before any signs with it."""


class KeyRing:
    """Implements `ports.AccessTokens`. Call `refresh` once before anything else."""

    def __init__(self, store: AuthStore, seal: Seal, rules: KeyRules) -> None:
        self._store = store
        self._seal = seal
        self._rules = rules
        self._keys: tuple[SigningKey, ...] = ()
        self._published: tuple[SigningKey, ...] = ()

    @property
    def lifetime(self) -> int:
        return int(self._rules.token_lifetime.total_seconds())

    def issue(self, user: User, sign_in: UUID, now: datetime) -> str:
        signing = tokens.plan(self._keys, now, self._rules).signing
        if signing is None:
            raise AssertionError("refresh() makes the first key before anything is issued")
        return tokens.issue(signing, user, sign_in, now, self._rules.token_lifetime)

    def public_keys(self) -> KeySet:
        return KeySet(keys=tuple(tokens.public_jwk(key) for key in self._published))

    async def refresh(self) -> None:
        """Read the keys, and make or forget some where it is time.

        Raises:
            FatalError: the keys in the database were sealed with another encryption key.
            ProblemError: the database is away; the keys in memory stay.
        """
        async with self._store.transaction() as tx:
            await tx.exclusively("signing keys")
            keys = {key.kid: key for key in map(self._opened, await tx.signing_keys.all())}
            plan = tokens.plan(tuple(keys.values()), tx.now, self._rules)
            if plan.forget:
                await tx.signing_keys.forget([key.kid for key in plan.forget])
                log.info("signing keys forgotten", kids=[key.kid for key in plan.forget])
            if plan.make_one_active_from is not None:
                key = tokens.new_key(tx.now, plan.make_one_active_from)
                await self._keep(tx.signing_keys, key)
                keys[key.kid] = key
                plan = tokens.plan(tuple(keys.values()), tx.now, self._rules)
        self._keys, self._published = tuple(keys.values()), plan.published

    async def keep_fresh(self) -> None:
        """Refresh for ever; an absent database is waited out."""
        while True:
            await asyncio.sleep(REFRESH_EVERY)
            try:
                await self.refresh()
            except ProblemError as error:
                log.warning("signing keys not refreshed", reason=error.problem.detail)

    def _opened(self, sealed: SealedKey) -> SigningKey:
        try:
            seed = self._seal.open(sealed.sealed_private, sealed.kid)
        except SealError as error:
            raise FatalError(
                f"The signing keys in the database cannot be opened: {error}. Set "
                "STREAMSPACE_AUTH_ENCRYPTION_KEY to the key this database was used with. If it is "
                "lost, empty the table signing_keys: new keys are made, and nobody is signed out."
            ) from None
        return SigningKey(
            kid=sealed.kid,
            private=Ed25519PrivateKey.from_private_bytes(seed),
            created_at=sealed.created_at,
            active_from=sealed.active_from,
        )

    async def _keep(self, rows: SigningKeyRows, key: SigningKey) -> None:
        await rows.add(
            SealedKey(
                kid=key.kid,
                sealed_private=self._seal.close(key.private.private_bytes_raw(), key.kid),
                created_at=key.created_at,
                active_from=key.active_from,
            )
        )
        starts_in = key.active_from - key.created_at
        log.info("signing key made", kid=key.kid, signs_in_s=starts_in // timedelta(seconds=1))
