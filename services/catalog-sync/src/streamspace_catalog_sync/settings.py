"""What catalog-sync is told from outside: `STREAMSPACE_CATALOG_SYNC_...`."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr

from streamspace_common.runtime.settings import DatabaseSettings, ServiceSettings, service_config


def _plain_seconds(value: Any) -> Any:
    """`900` and `1.5` in the environment are seconds; pydantic itself wants `PT15M` there."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Duration = Annotated[timedelta, BeforeValidator(_plain_seconds)]


class Settings(ServiceSettings, DatabaseSettings):
    """All times are seconds or ISO 8601 durations, for instance `900` or `PT15M`."""

    model_config = service_config("catalog-sync")

    data_dir: Path = Field(
        default=Path(".streamspace/catalog-sync"),
        description="Copies of remote repositories, so that a sync fetches only what is new. "
        "May be lost at any time; needs no backup.",
    )
    token_key: Annotated[SecretStr, Field(min_length=32)] | None = Field(
        default=None,
        description="Encrypts catalog tokens in the database: at least 32 random characters. "
        "Without it catalogs that need a token cannot be added.",
    )
    sync_interval: Duration = Field(
        default=timedelta(minutes=15),
        ge=timedelta(seconds=10),
        description="How often each catalog is looked at. An unchanged one costs one request.",
    )
    concurrent_syncs: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Catalogs read at once, each by a process; a hanging one blocks no other.",
    )
    read_deadline: Duration = Field(
        default=timedelta(minutes=2),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How long reading one catalog may take in all before it counts as unreachable.",
    )
    silence_timeout: Duration = Field(
        default=timedelta(seconds=15),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=10),
        description="How long a git server may take to connect, or stay silent.",
    )
    local_paths: bool = Field(
        default=True,
        description="Whether catalogs may be repositories on this machine's disk. Operators can "
        "then publish templates from any git repository this service can read.",
    )
    plain_http: bool = Field(
        default=False,
        description="Whether http:// is taken beside https://. Tokens then travel readable.",
    )
    private_addresses: bool = Field(
        default=True,
        description="Whether hosts with private or loopback addresses may be fetched from. True, "
        "for many git servers have one; false where operators must not reach into the network. "
        "Link-local addresses, such as cloud metadata services, are refused in any case.",
    )
    ssh_key: Path | None = Field(
        default=None,
        description="Private key for ssh catalogs; by default ssh's own. Host keys are checked "
        "against the known_hosts of the user this runs as.",
    )
    starter: bool = Field(
        default=True,
        description="Whether the starter catalog is there. Switched off, it is withdrawn.",
    )
    republish_after: Duration = Field(
        default=timedelta(days=7),
        ge=timedelta(minutes=1),
        le=timedelta(days=25),
        description="Every template is published again when its last event is this old. EVENTS "
        "keeps 30 days, so a new session database always finds all templates in it.",
    )
    republish_at_start: bool = Field(
        default=False,
        description="Publish all templates once at start, after the event stream was lost.",
    )
