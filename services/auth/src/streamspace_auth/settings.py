"""What the auth service is told from outside; read once, in `main`."""

import base64
import binascii
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from streamspace_common.contracts.ids import CLUSTER_ID_LENGTH, CORE, LABEL_PATTERN
from streamspace_common.runtime.settings import (
    DatabaseSettings,
    ServiceSettings,
    service_config,
)

SERVICE = "auth"
ENCRYPTION_KEY_BYTES = 32
_DAY = 86400


class AuthSettings(ServiceSettings, DatabaseSettings):
    """Environment: `STREAMSPACE_AUTH_<FIELD>`, or `STREAMSPACE_<FIELD>` for shared ones."""

    model_config: ClassVar[SettingsConfigDict] = service_config(SERVICE)

    encryption_key: SecretStr = Field(
        description="32 random bytes in base64 (`openssl rand -base64 32`). Seals the signing "
        "keys in the database, so that a copy of the database alone signs no token.",
    )

    admin_password: SecretStr | None = Field(
        default=None,
        description="Password of the first `admin`, used only while no user exists. "
        "None generates one and shows it once.",
    )
    admin_password_file: Path | None = Field(
        default=None,
        description="Where a generated password is written (mode 0600), for whoever shows it and "
        "deletes the file. None prints it on stderr.",
    )

    bus_authority_file: Path = Field(
        description="File (JSON, mode 0600) with the keys that make clusters' accounts on the bus; "
        "the command that makes an installation's secrets writes it.",
    )
    bus_accounts_credentials: Path = Field(
        description="A NATS .creds file of the servers' own account, with which they are given "
        "clusters' accounts and nothing else. The same command writes it.",
    )
    agent_credential_lifetime: int = Field(
        default=_DAY,
        ge=5,
        le=30 * _DAY,
        description="Seconds that an agent's credential on the bus is good for. It asks for the "
        "next one after two thirds, so this is also how long auth may be away without harm.",
    )
    enrolment_nats_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="NATS addresses that enrolments tell agents, with commas between. "
        "None given: this service's own `nats_url`.",
    )
    enrolment_tunnel_url: str = Field(
        default="ws://127.0.0.1:8081",
        pattern=r"^(ws|wss|http|https)://\S+$",
        description="Base address of vnc-proxy that enrolments tell agents to dial back to.",
    )
    enrolment_ca_file: Path | None = Field(
        default=None,
        description="Certificate authorities (PEM) that enrolments tell agents to trust, for NATS "
        "and the relay. None: this service's own `nats_ca_file`.",
    )
    first_cluster: str | None = Field(
        default=None,
        pattern=LABEL_PATTERN,
        max_length=CLUSTER_ID_LENGTH,
        description="Cluster that is enrolled at start without anybody asking, for one machine.",
    )
    first_cluster_file: Path | None = Field(
        default=None,
        description="Where the first cluster's enrolment is written (JSON, mode 0600). "
        "Written again when it is missing or no longer fits.",
    )

    first_cluster_nats_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="NATS addresses for the first cluster's agents, with commas between, where "
        "they are not those of `enrolment_nats_urls`: of agents on the control plane's own "
        "machine, beside others that come from elsewhere.",
    )
    first_cluster_tunnel_url: str | None = Field(
        default=None,
        pattern=r"^(ws|wss|http|https)://\S+$",
        description="The same in place of `enrolment_tunnel_url`. vnc-proxy has to know it too "
        "(`cluster_tunnel_urls`).",
    )

    access_token_lifetime: int = Field(
        default=900,
        ge=30,
        le=3600,
        description="Seconds. An access token cannot be revoked: this is how long a disabled "
        "user may go on reading.",
    )
    refresh_token_lifetime: int = Field(
        default=7 * _DAY,
        ge=60,
        description="Seconds that a refresh token waits for its use; each use starts them again.",
    )
    sign_in_lifetime: int = Field(
        default=30 * _DAY,
        ge=60,
        description="Seconds after which one signs in again, however busy one was.",
    )
    signing_key_lifetime: int = Field(
        default=30 * _DAY,
        ge=7200,
        description="Seconds that one key signs access tokens before the next one does.",
    )

    login_tries: int = Field(
        default=10,
        ge=1,
        le=100,
        description="Failed logins of one account within `login_window`, before it must wait.",
    )
    login_tries_per_address: int = Field(
        default=50,
        ge=1,
        le=10000,
        description="Failed logins from one address (IPv6: /64) within `login_window`, counted by "
        "each process. Above `login_tries`: many people share an office's address.",
    )
    login_window: int = Field(default=300, ge=1, le=_DAY, description="Seconds; see above.")
    hash_threads: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Passwords verified at once. Each takes 64 MiB and a core for a moment.",
    )

    @field_validator("encryption_key", mode="after")
    @classmethod
    def _is_a_key(cls, value: SecretStr) -> SecretStr:
        decode_encryption_key(value)
        return value

    @field_validator("first_cluster", mode="after")
    @classmethod
    def _is_free(cls, value: str | None) -> str | None:
        if value == CORE:
            raise ValueError("no cluster may be called 'core', it names the control plane")
        return value

    @model_validator(mode="after")
    def _first_cluster_is_told_whole(self) -> Self:
        if (self.first_cluster is None) != (self.first_cluster_file is None):
            raise ValueError(
                "first_cluster and first_cluster_file are given together or not at all"
            )
        return self

    @field_validator("enrolment_nats_urls", "first_cluster_nats_urls", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


def decode_encryption_key(value: SecretStr) -> bytes:
    """The 32 bytes of the key, from base64 of either alphabet.

    Raises:
        ValueError: it is something else; the text does not quote it.
    """
    text = value.get_secret_value().strip().replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("it is not base64; make one with: openssl rand -base64 32") from None
    if len(key) != ENCRYPTION_KEY_BYTES:
        raise ValueError("it is not 32 bytes long; make one with: openssl rand -base64 32")
    return key
