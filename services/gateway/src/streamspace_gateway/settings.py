"""Settings of the gateway, from `STREAMSPACE_GATEWAY_...`."""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from streamspace_common.runtime.settings import ServiceSettings, service_config


class GatewaySettings(ServiceSettings):
    model_config = service_config("gateway")

    listen_host: str = Field(
        default="127.0.0.1", description="Address to listen on; 0.0.0.0 in a container."
    )
    listen_port: int = Field(default=8080, ge=0, le=65535, description="0 takes any free port.")
    web_root: Path | None = Field(
        default=None, description="Folder of the built web app; without it only the API is served."
    )
    stream_url: str | None = Field(
        default=None,
        description="Public base address of the relay, for instance wss://streams.example.org. "
        "Left out, the host name a browser used is taken, with `stream_port`.",
    )
    stream_port: int = Field(
        default=8081, description="Port of the relay where `stream_url` is not set."
    )
    apps_domain: str = Field(
        default="localhost",
        description="Sessions with a web client of their own live at <session>.<apps-domain>.",
    )
    secure_cookies: bool = Field(
        default=False,
        description="Mark cookies Secure. Needed behind TLS; a plain http://localhost cannot.",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Networks of the reverse proxies whose X-Forwarded-For is believed.",
    )
    max_body_bytes: int = Field(
        default=256 * 1024, ge=1024, description="Largest request body, in bytes."
    )
    create_rate: str = Field(
        default="120/minute", description="Session creations per user, as <count>/<period>."
    )
    connect_rate: str = Field(
        default="120/minute", description="Stream tickets per user, as <count>/<period>."
    )
    catalog_rate: str = Field(
        default="30/minute", description="Catalog changes and syncs per user."
    )
    feed_memory: int = Field(
        default=10_000,
        ge=100,
        description="Newest events kept in memory; a client that resumes from an older one is "
        "caught up from the stream.",
    )
    feed_lifetime: float = Field(
        default=900,
        ge=10,
        description="Seconds after which an event stream is closed, so that a signed-out user's "
        "ends; clients resume without a gap.",
    )
    cookie_same_site: Literal["strict", "lax"] = Field(
        default="strict", description="SameSite of the refresh cookie."
    )

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Commas between, as in the relay's setting of this name; a JSON list also."""
        if isinstance(value, str):
            return tuple(word for word in re.split(r'[\s,\[\]"]+', value) if word)
        return value
