"""Which addresses a catalog may have."""

import pytest

from streamspace_catalog_sync.addresses import (
    Address,
    AddressError,
    AddressRules,
    Transport,
    check_branch,
    parse_address,
)
from streamspace_catalog_sync.source.guarded_http import ForbiddenAddressError, check_address

RULES = AddressRules()


@pytest.mark.parametrize(
    ("given", "transport", "kept"),
    [
        ("https://git.example/team/catalog.git", "http", "https://git.example/team/catalog.git"),
        (" HTTPS://Git.Example/team/catalog/ ", "http", "https://git.example/team/catalog"),
        ("https://git.example:8443/c", "http", "https://git.example:8443/c"),
        ("https://[2001:db8::1]:8443/c", "http", "https://[2001:db8::1]:8443/c"),
        ("ssh://deploy@git.example:2222/c.git", "ssh", "ssh://deploy@git.example:2222/c.git"),
        ("ssh://git.example/c.git", "ssh", "ssh://git@git.example/c.git"),
        ("git@git.example:team/c.git", "ssh", "ssh://git@git.example/~/team/c.git"),
        ("/srv/catalogs/lab", "local", "/srv/catalogs/lab"),
        ("/srv//catalogs/lab/", "local", "/srv/catalogs/lab"),
        ("file:///srv/my%20lab", "local", "/srv/my lab"),
    ],
)
def test_an_address_is_taken_and_written_in_one_way(given: str, transport: str, kept: str) -> None:
    assert parse_address(given, RULES) == Address(Transport(transport), kept)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "catalog",
        "./catalog",
        "https://",
        "https://git.example",
        "https://git.example/",
        "https://user:secret@git.example/c",
        "https://token@git.example/c",
        "ssh://git:secret@git.example/c",
        "ssh://-oProxyCommand=x@git.example/c",
        "ssh://-oProxyCommand=x/c",
        "https://git.example/c?private_token=x",
        "https://git.example/c#x",
        "https://git.example:99999/c",
        "https://git example/c",
        "http://git.example/c",
        "git://git.example/c",
        "ext::sh -c true",
        "file://server/share",
        "/srv/../etc",
        "/srv/a\nb",
        "javascript:alert(1)",
    ],
)
def test_other_addresses_are_refused(given: str) -> None:
    with pytest.raises(AddressError):
        parse_address(given, RULES)


def test_a_refused_address_with_credentials_is_not_repeated() -> None:
    with pytest.raises(AddressError) as caught:
        parse_address("https://user:hunter2@git.example/c", RULES)
    assert "hunter2" not in str(caught.value)


def test_settings_decide_about_local_paths_and_plain_http() -> None:
    with pytest.raises(AddressError):
        parse_address("/srv/lab", AddressRules(local_paths=False))
    http = parse_address("http://git.example/c", AddressRules(plain_http=True))
    assert http.url == "http://git.example/c"


@pytest.mark.parametrize("name", ["main", "release/1.0", "v1.2", "feature_x", "größe"])
def test_branch_names_of_git_are_taken(name: str) -> None:
    assert check_branch(name) == name


@pytest.mark.parametrize(
    "name", ["", "-x", "a..b", "a b", "a/", "/a", "a//b", ".a", "a.lock", "a@{1}", "a^", "a:b"]
)
def test_what_git_does_not_take_as_a_branch_is_refused(name: str) -> None:
    with pytest.raises(AddressError):
        check_branch(name)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"]
)
def test_link_local_addresses_are_never_fetched_from(address: str) -> None:
    with pytest.raises(ForbiddenAddressError):
        check_address(address, private_addresses=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.1.1", "::1", "fd00::1"])
def test_private_addresses_are_fetched_from_where_that_is_allowed(address: str) -> None:
    check_address(address, private_addresses=True)
    with pytest.raises(ForbiddenAddressError):
        check_address(address, private_addresses=False)


def test_public_addresses_are_fetched_from() -> None:
    check_address("93.184.216.34", private_addresses=False)
