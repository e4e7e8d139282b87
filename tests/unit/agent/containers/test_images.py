"""Where images are fetched from."""

import pytest

from streamspace_agent.runtimes.containers.images import pulled_from

MIRRORS = {
    "streamspace/": "registry.example.org/streamspace/",
    "lscr.io/": "registry.example.org/lscr/",
    "lscr.io/linuxserver/firefox:": "registry.example.org/our-firefox:",
}


@pytest.mark.parametrize(
    ("named", "fetched"),
    [
        ("streamspace/desktop:0.1.0", "registry.example.org/streamspace/desktop:0.1.0"),
        ("lscr.io/linuxserver/gimp:latest", "registry.example.org/lscr/linuxserver/gimp:latest"),
        ("lscr.io/linuxserver/firefox:latest", "registry.example.org/our-firefox:latest"),
        ("kasmweb/chrome:1.16.0", "kasmweb/chrome:1.16.0"),
    ],
)
def test_the_longest_beginning_that_is_known_is_replaced(named: str, fetched: str) -> None:
    assert pulled_from(named, MIRRORS) == fetched
