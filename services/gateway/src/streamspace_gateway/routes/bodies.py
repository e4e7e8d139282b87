"""Request bodies of the HTTP API. Unknown fields are refused: a typo is not a default."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from streamspace_common.contracts.base import Contract, Secret, Timestamp
from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.identity import Role, User
from streamspace_common.contracts.ids import (
    CLUSTER_ID_LENGTH,
    LABEL_PATTERN,
    ClusterIdText,
    CommandIdText,
)
from streamspace_common.contracts.sessions import Session, ViewerRole

Password = Annotated[Secret, Field(min_length=10, max_length=1024)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, strip_whitespace=True)]


class Body(Contract):
    model_config = ConfigDict(extra="forbid")


class LoginBody(Body):
    username: str = Field(min_length=1, max_length=255)
    password: Secret = Field(min_length=1, max_length=1024)
    delivery: Literal["token", "cookie"] = Field(
        default="token",
        description="Where the refresh token goes: into the answer, or into an HttpOnly cookie.",
    )


class RefreshBody(Body):
    refresh_token: Secret | None = Field(
        default=None, min_length=1, max_length=512, description="Left out, the cookie is taken."
    )


class TokenAnswer(Contract):
    access_token: str = Field(repr=False)
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the scheme, not a token
    expires_in: int = Field(description="Seconds.")
    refresh_token: str | None = Field(
        default=None, repr=False, description="Null when it went into the cookie."
    )
    refresh_expires_in: int = Field(description="Seconds.")
    user: User


class PasswordBody(Body):
    current_password: Secret = Field(min_length=1, max_length=1024)
    new_password: Password


class DrainBody(Body):
    hibernate: bool = Field(
        default=False, description="Also put the sessions that run there to rest."
    )


class CreateUserBody(Body):
    username: Name
    password: Password
    display_name: str | None = Field(default=None, max_length=255)
    email: str | None = Field(default=None, max_length=320)
    role: Role = Role.USER


class UpdateUserBody(Body):
    """Fields left out stay as they are."""

    display_name: str | None = Field(default=None, max_length=255)
    email: str | None = Field(default=None, max_length=320)
    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None


class ResourcesBody(Body):
    """Kubernetes quantities, for instance `500m` and `2Gi`."""

    cpu: str | None = Field(default=None, max_length=20, examples=["500m"])
    memory: str | None = Field(default=None, max_length=20, examples=["2Gi"])


class CreateSessionBody(Body):
    template: str = Field(
        min_length=1,
        max_length=255,
        description="A template's id, or its name where only one catalog has it.",
    )
    resources: ResourcesBody | None = None
    persistent_home: bool = True
    cluster_id: ClusterIdText | None = None
    idle_timeout: int | None = Field(
        default=None, ge=60, le=30 * 86400, description="Seconds without input until hibernation."
    )
    max_duration: int | None = Field(
        default=None, ge=60, le=30 * 86400, description="Seconds until the session is ended."
    )


class AcceptedAnswer(Contract):
    """The session as it is now; `commandId` names the work that was started, if any."""

    session: Session
    command_id: CommandIdText | None


class ConnectBody(Body):
    role: ViewerRole = ViewerRole.CONTROL


class ConnectAnswer(Contract):
    """Where and how to open the stream, within seconds and once.

    `vnc`: open a WebSocket to `url` with these `protocols`. `http`: post the form
    field `ticket` to `url`.
    """

    url: str
    protocols: tuple[str, ...] = Field(default=(), repr=False)
    ticket: str = Field(repr=False)
    role: ViewerRole
    protocol: Protocol
    expires_at: Timestamp


class AddCatalogBody(Body):
    name: Name = Field(max_length=100)
    url: str = Field(
        min_length=1,
        max_length=2000,
        description="A git repository: https, ssh, or an absolute path on the server.",
    )
    branch: str | None = Field(default=None, max_length=200)
    token: Secret | None = Field(
        default=None, max_length=1000, description="Password for https; never shown again."
    )


class EnrolClusterBody(Body):
    id: Annotated[str, StringConstraints(pattern=LABEL_PATTERN, max_length=CLUSTER_ID_LENGTH)] = (
        Field(description="A DNS label; `core` is taken.")
    )
    name: str | None = Field(default=None, max_length=100)
    replace: bool = Field(
        default=False,
        description="Issue a new enrolment for a cluster that exists, and revoke what it had.",
    )
