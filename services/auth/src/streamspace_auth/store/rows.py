"""The tables, as `migrations/versions` makes them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, DateTime, Integer, LargeBinary, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from streamspace_common.contracts.identity import Role


class AuthRow(SQLModel, registry=registry()):
    """Base of this service's tables; their metadata is apart from other services'."""


def _moment(*, nullable: bool = False) -> "Column[datetime]":
    return Column(DateTime(timezone=True), nullable=nullable)


class UserRow(AuthRow, table=True):
    __tablename__ = "users"
    id: str = Field(sa_column=Column(Text, primary_key=True))
    username: str = Field(sa_type=Text)
    username_key: str = Field(sa_column=Column(Text(collation="C"), nullable=False, unique=True))
    display_name: str | None = Field(default=None, sa_type=Text)
    email: str | None = Field(default=None, sa_type=Text)
    email_key: str | None = Field(default=None, sa_column=Column(Text, unique=True))
    role: Role = Field(sa_type=Text)
    disabled: bool = Field(sa_column=Column(Boolean, nullable=False))
    password_hash: str = Field(sa_type=Text, repr=False)
    password_changed_at: datetime = Field(sa_column=_moment())
    created_at: datetime = Field(sa_column=_moment())
    updated_at: datetime = Field(sa_column=_moment())
    last_login_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    version: int = Field(sa_column=Column(BigInteger, nullable=False))


class LoginFailureRow(AuthRow, table=True):
    """Recent failures under one typed name; the key is a digest of it."""

    __tablename__ = "login_failures"
    account_key: str = Field(sa_column=Column(Text, primary_key=True))
    failed_at: list[datetime] = Field(
        sa_column=Column(ARRAY(DateTime(timezone=True)), nullable=False)
    )
    last_failed_at: datetime = Field(sa_column=_moment())


class FamilyRow(AuthRow, table=True):
    __tablename__ = "refresh_families"
    id: UUID = Field(primary_key=True)
    user_id: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_column=_moment())
    expires_at: datetime = Field(sa_column=_moment())
    revoked_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class RefreshTokenRow(AuthRow, table=True):
    __tablename__ = "refresh_tokens"
    digest: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    family_id: UUID
    generation: int = Field(sa_column=Column(Integer, nullable=False))
    issued_at: datetime = Field(sa_column=_moment())
    expires_at: datetime = Field(sa_column=_moment())
    rotated_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class SigningKeyRow(AuthRow, table=True):
    __tablename__ = "signing_keys"
    kid: str = Field(sa_column=Column(Text, primary_key=True))
    sealed_private: bytes = Field(sa_column=Column(LargeBinary, nullable=False), repr=False)
    created_at: datetime = Field(sa_column=_moment())
    active_from: datetime = Field(sa_column=_moment())


class ClusterRow(AuthRow, table=True):
    __tablename__ = "clusters"
    id: str = Field(sa_column=Column(Text, primary_key=True))
    name: str = Field(sa_type=Text)
    credential: str = Field(sa_type=Text)
    issuer: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_column=_moment())
    enrolled_at: datetime = Field(sa_column=_moment())
    account: str | None = Field(default=None, sa_type=Text)
    agents_key: str | None = Field(default=None, sa_type=Text)
    sealed_agents_seed: bytes | None = Field(
        default=None, sa_column=Column(LargeBinary), repr=False
    )
    revoked_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class RemovedClusterRow(AuthRow, table=True):
    """What is left of a cluster that was removed and not enrolled again."""

    __tablename__ = "removed_clusters"
    id: str = Field(sa_column=Column(Text, primary_key=True))
    removed_at: datetime = Field(sa_column=_moment())


class BusAccountRow(AuthRow, table=True):
    """The token of an account as the servers were last given it."""

    __tablename__ = "bus_accounts"
    account: str = Field(sa_column=Column(Text, primary_key=True))
    token: str = Field(sa_type=Text)
