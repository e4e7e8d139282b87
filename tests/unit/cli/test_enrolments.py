"""What is said of an enrolment before somebody carries it to another machine."""

import pytest

from streamspace_cli.commands.clusters import only_from_its_own_machine


@pytest.mark.parametrize(
    ("nats", "tunnel", "here"),
    [
        ("wss://hub.example.org:8443/bus", "wss://hub.example.org:8443", None),
        ("tls://192.0.2.7:4222", "wss://[2001:db8::7]", None),
        ("nats://127.0.0.1:4222", "wss://hub.example.org", "nats://127.0.0.1:4222"),
        ("wss://hub.example.org/bus", "ws://localhost:8081", "ws://localhost:8081"),
        ("wss://hub.example.org/bus", "ws://[::1]:8081", "ws://[::1]:8081"),
    ],
)
def test_an_address_that_leads_nowhere_from_elsewhere_is_found(
    nats: str, tunnel: str, here: str | None
) -> None:
    assert only_from_its_own_machine({"natsUrls": [nats], "tunnelUrl": tunnel}) == here
