"""Where agents are told to dial back to: the address that their cluster knows."""

import pytest
from pydantic import ValidationError

from streamspace_common.contracts.ids import ClusterId
from streamspace_vnc_proxy.settings import VncProxySettings

EAST, LOCAL = ClusterId("east"), ClusterId("local")


def test_a_cluster_has_an_address_of_its_own_or_the_one_of_all() -> None:
    settings = VncProxySettings(
        tunnel_url="wss://hub.example.org:8443/",
        cluster_tunnel_urls={"local": "ws://127.0.0.1:8081/"},
    )
    assert settings.dial_base(EAST) == "wss://hub.example.org:8443"
    assert settings.dial_base(LOCAL) == "ws://127.0.0.1:8081"
    # A replica's own address is for those who find it there.
    alone = settings.model_copy(update={"advertise_url": "wss://one.example.org"})
    assert alone.dial_base(EAST) == "wss://one.example.org"
    assert alone.dial_base(LOCAL) == "ws://127.0.0.1:8081"


@pytest.mark.parametrize(
    "wrong", [{"local": "http://hub"}, {"local": "hub:1"}, {"No One": "ws://a"}]
)
def test_what_is_no_address_of_a_relay_is_refused_at_the_start(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="cluster_tunnel_urls"):
        VncProxySettings(cluster_tunnel_urls=wrong)
