"""What the agents' ingress is told by its environment (`STREAMSPACE_AGENT_INGRESS_...`)."""

import re
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from streamspace_common.runtime.settings import ServiceSettings, service_config

SERVICE = "agent-ingress"
_HOST_AND_PORT = re.compile(r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})$")


class AgentIngressSettings(ServiceSettings):
    """It has no credential of the bus and uses none of the settings for one."""

    model_config: ClassVar[SettingsConfigDict] = service_config(SERVICE)

    listen_host: str = Field(
        default="127.0.0.1",
        description="Where agents connect; 0.0.0.0, or `::`, for those on other machines.",
    )
    listen_port: int = Field(
        default=8443, ge=0, le=65535, description="TCP port of the above; 0 takes a free one."
    )
    certificate_file: Path = Field(
        description="Its certificate (PEM), with those that lead to an authority agents trust. "
        "Taken up anew within a minute when it changes.",
    )
    key_file: Path = Field(description="The certificate's key (PEM, without a password).")
    bus_address: str = Field(
        default="127.0.0.1:9222",
        description="host:port of NATS' listener for WebSockets, which nobody else has to reach "
        "and which so speaks no TLS.",
    )
    relay_address: str = Field(
        default="127.0.0.1:8081", description="host:port at which vnc-proxy takes tunnels."
    )

    @field_validator("bus_address", "relay_address")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        address(value)
        return value


def address(value: str) -> tuple[str, int]:
    """host:port as two.

    Raises:
        ValueError: it is something else.
    """
    found = _HOST_AND_PORT.match(value)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ValueError("it is not host:port")
    return found[1].strip("[]"), int(found[2])
