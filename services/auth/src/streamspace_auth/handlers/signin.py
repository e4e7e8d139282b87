"""Signing in, staying signed in, signing out."""

from dataclasses import replace

from streamspace_auth.domain.accounts import Account
from streamspace_auth.domain.families import (
    FamilyRules,
    IssuedToken,
    Verdict,
    digest,
    judge,
    start_family,
    successor,
)
from streamspace_auth.domain.logins import LoginResult, account_key
from streamspace_auth.handlers.credentials import (
    CredentialCheck,
    Proven,
    WrongPasswordError,
    account_disabled,
)
from streamspace_auth.ports import AccessTokens, LoginMeter, Store, Transaction
from streamspace_common.contracts.events import RefreshTokenReused, UserSignedIn, UserSignedOut
from streamspace_common.contracts.identity import Actor, User
from streamspace_common.contracts.ids import new_message_id
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    Empty,
    KeySet,
    LoginRequest,
    LogoutRequest,
    RefreshRequest,
    Tokens,
)
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)


class SignIn:
    """Answers `login`, `refresh`, `logout` and `jwks`."""

    def __init__(
        self,
        store: Store,
        credentials: CredentialCheck,
        access_tokens: AccessTokens,
        meter: LoginMeter,
        *,
        rules: FamilyRules,
    ) -> None:
        self._store = store
        self._credentials = credentials
        self._access_tokens = access_tokens
        self._meter = meter
        self._rules = rules

    async def login(self, request: LoginRequest) -> Tokens:
        """Start a sign-in. Which of name and password was wrong is never told."""
        try:
            proven = await self._credentials.prove(
                request.username, request.password.get_secret_value(), request.address
            )
            tokens = await self._start(request, proven)
        except WrongPasswordError as wrong:
            self._failed(LoginResult.WRONG, request, user_id=wrong.user_id)
            raise ProblemError.of(
                Code.INVALID_CREDENTIALS, "The user name or the password is wrong."
            ) from None
        except ProblemError as error:
            if error.problem.code is Code.TOO_MANY_REQUESTS:
                self._failed(LoginResult.THROTTLED, request)
            raise
        self._meter.count(LoginResult.OK)
        return tokens

    async def _start(self, request: LoginRequest, proven: Proven) -> Tokens:
        async with self._store.transaction() as tx:
            account = await tx.accounts.get(proven.account.id, lock=True)
            if account is None or account.password_changed_at != proven.account.password_changed_at:
                raise WrongPasswordError(proven.account.id)
            if account.user.disabled:
                self._failed(LoginResult.DISABLED, request, user_id=account.id)
                raise account_disabled()
            user = account.user.model_copy(update={"last_login_at": tx.now})
            await tx.accounts.save(
                replace(account, user=user, password_hash=proven.upgraded or account.password_hash)
            )
            await tx.failures.clear(account_key(request.username))
            family, token = start_family(user.id, tx.now, self._rules)
            await tx.families.add(family, token.kept)
            await tx.emit(
                UserSignedIn(
                    id=str(new_message_id()),
                    at=tx.now,
                    actor=_actor(user, request.address),
                    user_id=user.id,
                )
            )
            return self._tokens(tx, user, token)

    async def refresh(self, request: RefreshRequest) -> Tokens:
        """Spend a refresh token for new tokens; see `domain.families` for the rules."""
        async with self._store.transaction() as tx:
            tokens = await self._rotate(tx, request)
        # Raised only here: what a reuse did to its family has to be kept.
        if tokens is None:
            raise ProblemError.of(Code.UNAUTHENTICATED, "The sign-in has ended. Sign in again.")
        return tokens

    async def _rotate(self, tx: Transaction, request: RefreshRequest) -> Tokens | None:
        found = await tx.families.find(digest(request.refresh_token.get_secret_value()))
        if found is None:
            return None
        family, token = found
        account = await tx.accounts.get(family.user_id)
        verdict = judge(family, token, tx.now, self._rules)
        if account is None or verdict in {Verdict.EXPIRED, Verdict.REVOKED}:
            return None
        user = account.user
        if verdict is Verdict.REUSED:
            await tx.families.revoke(family, tx.now)
            await tx.emit(
                RefreshTokenReused(
                    id=str(new_message_id()),
                    at=tx.now,
                    actor=_actor(user, request.address),
                    user_id=user.id,
                )
            )
            log.warning("a spent refresh token came again", user_id=user.id, sign_in=str(family.id))
            return None
        if user.disabled:
            return None
        issued = successor(family, token, tx.now, self._rules)
        if verdict is Verdict.GRACE:
            await tx.families.add_successor(issued.kept)
        else:
            await tx.families.rotate(token, issued.kept)
        return self._tokens(tx, user, issued)

    async def logout(self, request: LogoutRequest) -> Empty:
        """End the sign-in the token belongs to; a token that is not known has ended already."""
        async with self._store.transaction() as tx:
            found = await tx.families.find(digest(request.refresh_token.get_secret_value()))
            if found is None or found[0].revoked_at is not None:
                return Empty()
            family, _ = found
            account = await tx.accounts.get(family.user_id)
            await tx.families.revoke(family, tx.now)
            await tx.emit(
                UserSignedOut(
                    id=str(new_message_id()),
                    at=tx.now,
                    actor=_account_actor(account, family.user_id, request.address),
                    user_id=family.user_id,
                )
            )
        return Empty()

    async def jwks(self, _request: Empty) -> KeySet:
        """The keys that verify every access token alive."""
        return self._access_tokens.public_keys()

    def _tokens(self, tx: Transaction, user: User, token: IssuedToken) -> Tokens:
        return Tokens(
            access_token=self._access_tokens.issue(user, token.kept.family_id, tx.now),
            expires_in=self._access_tokens.lifetime,
            refresh_token=token.text,
            refresh_expires_in=int((token.kept.expires_at - tx.now).total_seconds()),
            user=user,
        )

    def _failed(
        self, result: LoginResult, request: LoginRequest, user_id: str | None = None
    ) -> None:
        """Tell the operator. Not the name: people do type their password there."""
        self._meter.count(result)
        log.warning(
            "login failed",
            result=result.value,
            user_id=user_id,
            name_digest=account_key(request.username)[:12],
            address=request.address,
        )


def _actor(user: User, address: str | None) -> Actor:
    return Actor(id=user.id, name=user.username, address=address)


def _account_actor(account: Account | None, user_id: str, address: str | None) -> Actor:
    return _actor(account.user, address) if account else Actor(id=user_id, address=address)
