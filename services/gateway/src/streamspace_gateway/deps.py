"""What a route's signature says: who may call it, and through which ports.

`CurrentUser`, `OperatorOnly` and `AdminOnly` are the policy of a route, readable in
its signature; a route without one of them is public, visibly. Who owns what is
decided by the service that owns the data.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Annotated, Protocol

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from streamspace_common.contracts.identity import Principal, Role
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_gateway.ports import Feed, Services
from streamspace_gateway.rates import RateLimiter
from streamspace_gateway.settings import GatewaySettings


class Verifier(Protocol):
    async def verify(self, token: str) -> Principal: ...


@dataclass(frozen=True)
class State:
    """Everything routes may use, built in `main` and kept on the application."""

    services: Services
    feed: Feed
    verifier: Verifier
    rates: RateLimiter
    settings: GatewaySettings


async def get_state(request: Request) -> State:
    state: State = request.app.state.gateway
    return state


StateDep = Annotated[State, Depends(get_state)]

_bearer = HTTPBearer(
    auto_error=False, scheme_name="accessToken", bearerFormat="JWT", description="An access token."
)


async def authenticate(
    request: Request,
    state: StateDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """The caller's verified principal.

    Raises:
        ProblemError: `unauthenticated`, without a valid access token.
    """
    if credentials is None:
        raise ProblemError.of(
            Code.UNAUTHENTICATED,
            "Send an access token as `Authorization: Bearer ...`; "
            "POST /api/v1/auth/login gives one.",
        )
    return await state.verifier.verify(credentials.credentials)


CurrentUser = Annotated[Principal, Depends(authenticate)]


def _need(*roles: Role) -> object:
    async def check(principal: CurrentUser) -> Principal:
        if principal.role not in roles:
            names = " or ".join(roles)
            raise ProblemError.of(Code.FORBIDDEN, f"This needs the role {names}.")
        return principal

    return Depends(check)


OperatorOnly = Annotated[Principal, _need(Role.OPERATOR, Role.ADMIN)]
AdminOnly = Annotated[Principal, _need(Role.ADMIN)]


async def client_address(request: Request, state: StateDep) -> str | None:
    """The caller's address; `X-Forwarded-For` counts only from a trusted proxy."""
    peer = request.client.host if request.client else None
    if peer is None:
        return None
    address = peer
    for hop in reversed(request.headers.get("x-forwarded-for", "").split(",")):
        if not _trusted(address, state.settings.trusted_proxies):
            return address
        candidate = hop.strip()
        if not _is_address(candidate):
            return address
        address = candidate
    return address


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _trusted(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in networks)


ClientAddress = Annotated[str | None, Depends(client_address)]


async def if_match(
    if_match: Annotated[
        str | None, Header(description="An ETag: change only what was seen.", max_length=100)
    ] = None,
) -> int | None:
    """The version a conditional change asks for; None without the header or for `*`.

    Raises:
        ProblemError: `precondition-failed`, when it is no ETag of ours.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ProblemError.of(
            Code.PRECONDITION_FAILED, "If-Match must hold an ETag that this API gave."
        )
    return int(text)


IfMatch = Annotated[int | None, Depends(if_match)]


def etag(version: int) -> str:
    return f'"{version}"'
