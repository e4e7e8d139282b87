"""Typed settings from the environment, checked once, before anything starts.

A field `nats_url` of the session service is read from `STREAMSPACE_SESSION_NATS_URL`
or, where all services share a value, from `STREAMSPACE_NATS_URL`; the service's own
variable wins. Where `STREAMSPACE_SECRETS_DIR` names a folder, a file in it with a
field's name (`database_url`) is read after these: secrets then never stand in an
environment. Wrong or missing values are told in one sentence each, never with a
traceback and never with the value of a secret.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Never, TypeVar

from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

SHARED_PREFIX = "STREAMSPACE_"
SECRETS_DIR = f"{SHARED_PREFIX}SECRETS_DIR"
"""Variable with the folder of a service's own secrets, one file for each."""
PLACEHOLDERS = frozenset(
    {"", "changethis", "changeme", "change-me", "change_me", "secret", "password", "todo", "xxx"}
)
"""Values somebody copied from an example; no service starts with one of them as a secret."""

S = TypeVar("S", bound=BaseSettings)


def service_config(service: str) -> SettingsConfigDict:
    """`model_config` of a service's settings; `service` as in `catalog-sync`."""
    return SettingsConfigDict(
        env_prefix=f"{SHARED_PREFIX}{service.upper().replace('-', '_')}_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )


class ServiceSettings(BaseSettings):
    """What every service is told. Subclasses set `model_config = service_config(name)`."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix=SHARED_PREFIX)

    nats_url: str = Field(
        default="nats://127.0.0.1:4222",
        description="Address of the NATS server; several may be given with commas between. "
        "`tls://` encrypts from the first byte, which the server has to allow "
        "(`handshake_first`).",
    )
    nats_credentials: Path | None = Field(
        default=None,
        description="A NATS .creds file. None for a server without authentication, as in tests.",
    )
    nats_ca_file: Path | None = Field(
        default=None,
        description="Certificate authorities (PEM) that are trusted for `tls://`, besides the "
        "system's own.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest level that is written."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="`json` for machines, one object a line; `console` for people."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        description="Base address of an OpenTelemetry collector that takes traces as OTLP over "
        "HTTP, for instance http://collector:4318. Without it nothing is recorded.",
    )
    otlp_sample_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of traces that are kept. The same for all services, or traces get "
        "holes.",
    )
    health_host: str = Field(
        default="127.0.0.1",
        description="Where /healthz, /readyz and /metrics listen. Local unless probes come from "
        "elsewhere.",
    )
    health_port: int = Field(
        default=0, ge=0, le=65535, description="TCP port of the above; 0 takes a free one."
    )
    drain_timeout: float = Field(
        default=20.0,
        gt=0,
        le=600,
        description="Seconds for an orderly end. Below Kubernetes' grace period of 30, so that "
        "the process ends before it is killed.",
    )

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_placeholders(cls, value: Any) -> Any:
        if isinstance(value, SecretStr) and value.get_secret_value().lower() in PLACEHOLDERS:
            raise ValueError("it is a placeholder, not a secret; generate a real one")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - none of ours
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the folder's name is a setting
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the shared variables below the service's own; read no `.env` file by surprise."""
        shared = EnvSettingsSource(settings_cls, env_prefix=SHARED_PREFIX, env_ignore_empty=True)
        folder = os.environ.get(SECRETS_DIR) or None
        if folder is not None and not Path(folder).is_dir():
            raise SettingsError(f"{SECRETS_DIR} is not valid: {folder} is not a folder")
        files = SecretsSettingsSource(settings_cls, secrets_dir=folder, env_prefix="")
        return init_settings, env_settings, shared, files


class DatabaseSettings(BaseModel):
    """Mixed into the settings of a service that owns a database."""

    database_url: SecretStr = Field(
        description="postgresql://user:password@host:port/database of this service."
    )
    database_pool_size: int = Field(
        default=10,
        ge=1,
        le=200,
        description="Connections kept open. Ten serve some thousands of short transactions a "
        "second; PostgreSQL itself allows 100 in all by default.",
    )

    @field_validator("database_url", mode="after")
    @classmethod
    def _is_postgresql(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
            raise ValueError("it does not begin with postgresql://")
        password = rest.rpartition("@")[0].partition(":")[2]
        if password and password.lower() in PLACEHOLDERS:
            raise ValueError("its password is a placeholder; generate a real one")
        return value


def load(cls: type[S]) -> S:
    """Read the settings, or say on stderr what is wrong and exit with status 2."""
    try:
        return cls()
    except ValidationError as error:
        _refuse([_sentence(cls, detail) for detail in error.errors(include_url=False)])
    except SettingsError as error:
        _refuse([f"{error}."])


def _refuse(sentences: Sequence[str]) -> Never:
    for sentence in sentences:
        print(sentence, file=sys.stderr)  # noqa: T201 - logging is configured by these settings
    raise SystemExit(2)


def _sentence(cls: type[BaseSettings], detail: ErrorDetails) -> str:
    if not detail["loc"]:
        return f"The settings are not valid: {_plain(detail)}."
    field = str(detail["loc"][0])
    prefix = str(cls.model_config.get("env_prefix") or SHARED_PREFIX)
    variable = f"{prefix}{field}".upper()
    if detail["type"] == "missing":
        info = cls.model_fields.get(field)
        meaning = f": {info.description.rstrip('.')}" if info and info.description else ""
        return f"{variable} is not set{meaning}."
    return f"{variable} is not valid: {_plain(detail)}."


def _plain(detail: ErrorDetails) -> str:
    """Pydantic's words; they name limits and choices, never the value that was given."""
    message = detail["msg"].removeprefix("Value error, ")
    return (message[0].lower() + message[1:]).rstrip(".")
