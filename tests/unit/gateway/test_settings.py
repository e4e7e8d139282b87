"""Where proxies are believed is said the same way to the gateway and to the relay."""

import pytest

from streamspace_common.runtime.settings import load
from streamspace_gateway.settings import GatewaySettings
from streamspace_vnc_proxy.settings import VncProxySettings


@pytest.mark.parametrize(
    "value", ["10.0.0.0/8,fd00::/8", "10.0.0.0/8, fd00::/8", '["10.0.0.0/8", "fd00::/8"]']
)
def test_trusted_proxies_are_a_list_with_commas_or_json(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSPACE_GATEWAY_TRUSTED_PROXIES", value)
    assert [str(each) for each in load(GatewaySettings).trusted_proxies] == [
        "10.0.0.0/8",
        "fd00::/8",
    ]


def test_one_variable_tells_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSPACE_TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.0/24")
    told = tuple(str(each) for each in load(GatewaySettings).trusted_proxies)
    assert told == load(VncProxySettings).trusted_proxies == ("10.0.0.0/8", "192.0.2.0/24")


def test_what_is_no_network_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMSPACE_GATEWAY_TRUSTED_PROXIES", "the office")
    with pytest.raises(SystemExit):
        load(GatewaySettings)
    assert "STREAMSPACE_GATEWAY_TRUSTED_PROXIES is not valid" in capsys.readouterr().err
