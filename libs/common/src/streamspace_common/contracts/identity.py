"""Who acts: users, roles and the principal that the gateway vouches for."""

from enum import StrEnum

from pydantic import Field

from streamspace_common.contracts.base import Contract, Timestamp
from streamspace_common.contracts.ids import UserId, UserIdText

TOKEN_ISSUER = "streamspace"  # noqa: S105 - a name, not a token
TOKEN_AUDIENCE = "streamspace-api"  # noqa: S105
"""`iss` and `aud` of access tokens: auth writes them, every gateway asks for them."""


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    USER = "user"


class Principal(Contract):
    """A caller whose access token the gateway has verified."""

    user_id: UserIdText
    username: str
    role: Role
    sign_in: str | None = Field(
        default=None,
        max_length=64,
        description="Which sign-in the access token came from (its claim `sid`).",
    )

    @property
    def sees_everything(self) -> bool:
        """Operators and admins see and stop everybody's sessions."""
        return self.role in {Role.ADMIN, Role.OPERATOR}


class Actor(Contract):
    """Who caused a change: a user, an agent, or the control plane itself.

    `id` is a user id, `agent:<cluster>/<instance>`, or `system:<service>`.
    """

    id: str
    name: str | None = None
    address: str | None = Field(default=None, description="Client address of a user's request.")


class User(Contract):
    """A user as API and events show it: never a secret in it."""

    id: UserIdText
    username: str
    display_name: str | None = None
    email: str | None = None
    role: Role
    disabled: bool = False
    created_at: Timestamp
    updated_at: Timestamp
    last_login_at: Timestamp | None = None
    version: int = Field(ge=1, description="Grows with each change; the ETag.")


def user_actor(principal: Principal, address: str | None = None) -> Actor:
    return Actor(id=principal.user_id, name=principal.username, address=address)


def system_actor(service: str) -> Actor:
    return Actor(id=f"system:{service}", name=service)


def is_owner(principal: Principal, owner_id: UserId) -> bool:
    """The one owner rule: one's own, or everybody's for operators and admins."""
    return principal.user_id == owner_id or principal.sees_everything
