"""What the vnc-proxy is told by its environment (`STREAMSPACE_VNC_PROXY_...`)."""

import ipaddress
import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from streamspace_common.contracts.ids import ClusterId, ClusterIdText
from streamspace_common.runtime.settings import ServiceSettings, service_config

Words = Annotated[tuple[str, ...], NoDecode]
"""Several values in one variable, separated by commas."""

_HOST_AND_PORT = re.compile(r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})$")


class VncProxySettings(ServiceSettings):
    """Seconds where nothing else is said."""

    model_config: ClassVar[SettingsConfigDict] = service_config("vnc-proxy")

    listen_host: str = Field(
        default="127.0.0.1", description="Where viewers and agents connect; 0.0.0.0 in containers."
    )
    listen_port: int = Field(
        default=8081, ge=0, le=65535, description="TCP port of the above; 0 takes a free one."
    )
    tunnel_url: str = Field(
        default="ws://127.0.0.1:8081",
        description="The address agents reach the proxy at (ws or wss), shared by all replicas.",
    )
    cluster_tunnel_urls: dict[ClusterIdText, str] = Field(
        default_factory=dict,
        description="Where agents of certain clusters reach the proxy instead, as a JSON object "
        'from cluster to address: `{"local": "ws://127.0.0.1:8081"}` for those on its machine. '
        "Has to be what their enrolments say.",
    )
    advertise_url: str | None = Field(
        default=None,
        description="This replica's own address for agents, where each replica has one; spares "
        "the hop through a peer.",
    )
    replica_address: str | None = Field(
        default=None,
        description="host:port at which the other replicas reach this one. Needed with several "
        "replicas behind one address.",
    )
    peer_hosts: Words = Field(
        default=(),
        description="Which replica addresses are believed: names (`*.proxy.svc.cluster.local`), "
        "addresses or networks (`10.42.0.0/16`), each with `:port` if not this one's own.",
    )
    allowed_origins: Words = Field(
        default=(),
        description="Origins whose pages may open streams (`https://apps.example.org`). None: "
        "pages from the same host name, on any port.",
    )
    trusted_proxies: Words = Field(
        default=(),
        description="Networks of the reverse proxies whose X-Forwarded-For is believed.",
    )
    apps_domain: str = Field(
        default="localhost",
        pattern=r"^[A-Za-z0-9.-]+$",
        description="Below it each session with a web client of its own has a host name, "
        "`<session>.<apps domain>`; the same as the gateway's. Best a domain that nothing else "
        "uses.",
    )
    apps_scheme: Literal["http", "https"] = Field(
        default="http",
        description="How browsers reach those hosts; `https` where a reverse proxy ends TLS. Then "
        "their cookies are `__Host-` ones.",
    )
    cookie_key: Annotated[SecretStr, Field(min_length=32)] | None = Field(
        default=None,
        description="Signs the cookies of those hosts: at least 32 random characters, the same "
        "for all replicas. Without it each process makes one, so its restart sends everybody "
        "back to StreamSpace once.",
    )
    pass_lifetime: float = Field(
        default=12 * 3600.0,
        ge=60,
        le=30 * 86400,
        description="How long such a cookie lets its user in, if nobody takes the right away.",
    )
    ticket_timeout: float = Field(
        default=5.0, gt=0, le=60, description="How long the session service may take for a ticket."
    )
    open_timeout: float = Field(
        default=10.0,
        gt=0,
        le=60,
        description="How long an agent may take to reach a session and dial back.",
    )
    max_viewers_per_session: int = Field(
        default=10, ge=1, le=1000, description="Each costs the session one encoder."
    )
    max_streams: int = Field(
        default=5000,
        ge=1,
        description="Viewers of this replica in all. Far below the file limit: each takes two.",
    )
    max_opening: int = Field(
        default=500, ge=1, description="Streams being opened at the same time."
    )
    upgrades_per_minute: int = Field(
        default=600,
        ge=1,
        description="New streams from one client address. Generous, as an office may share one.",
    )
    activity_interval: float = Field(
        default=30.0, gt=0, le=600, description="How often a session's activity is reported."
    )
    recheck_interval: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="How often a viewer's right to be there is checked.",
    )
    ping_interval: float = Field(
        default=20.0,
        gt=0,
        le=600,
        description="Silence after which the other end is pinged. Below the 60 s at which common "
        "load balancers end silent connections.",
    )
    pong_timeout: float = Field(
        default=20.0, gt=0, le=600, description="Silence after a ping that ends a connection."
    )
    drain_notice: float = Field(
        default=0.0,
        ge=0,
        le=60,
        description="Between not ready and closing the streams, for load balancers to notice.",
    )

    def dial_base(self, cluster: ClusterId) -> str:
        """Where agents of a cluster are told to dial back to."""
        return self.cluster_tunnel_urls.get(cluster, self.advertise_url or self.tunnel_url)

    @field_validator(
        "peer_hosts", "allowed_origins", "trusted_proxies", mode="before", check_fields=True
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value

    @field_validator("tunnel_url", "advertise_url")
    @classmethod
    def _is_websocket_url(cls, value: str | None) -> str | None:
        return None if value is None else _websocket_url(value)

    @field_validator("cluster_tunnel_urls")
    @classmethod
    def _are_websocket_urls(cls, value: dict[str, str]) -> dict[str, str]:
        return {cluster: _websocket_url(url) for cluster, url in value.items()}

    @field_validator("replica_address")
    @classmethod
    def _is_host_and_port(cls, value: str | None) -> str | None:
        if value is not None and not _HOST_AND_PORT.match(value):
            raise ValueError("it is not host:port")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            ipaddress.ip_network(word, strict=False)
        return value

    @model_validator(mode="after")
    def _peers_need_an_address(self) -> "VncProxySettings":
        if self.peer_hosts and self.replica_address is None:
            raise ValueError("peer_hosts is set, so replica_address must be set too")
        return self


def _websocket_url(value: str) -> str:
    """It, without a slash at its end.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(value)
    if parts.scheme not in {"ws", "wss"} or not parts.hostname:
        raise ValueError("it does not begin with ws:// or wss:// and a host")
    return value.rstrip("/")
