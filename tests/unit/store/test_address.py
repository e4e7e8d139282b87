"""A database URL says how much its connection is protected, with libpq's words and meaning."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamspace_common.runtime.supervisor import FatalError
from streamspace_common.store.address import address
from streamspace_embedded import certificates

URL = "postgresql://ada:s3cr3t@db.example.org:5432/session"


@pytest.fixture
def roots(tmp_path: Path) -> str:
    path = tmp_path / "roots.crt"
    path.write_text(certificates.new_authority(datetime.now(UTC)).certificate)
    return str(path)


def test_a_url_that_says_nothing_is_left_to_the_driver() -> None:
    url, arguments = address(URL)
    assert arguments == {}
    assert url.render_as_string(hide_password=False) == URL.replace(
        "postgresql", "postgresql+asyncpg", 1
    )


def test_what_the_driver_does_not_know_is_taken_out(roots: str) -> None:
    url, arguments = address(f"{URL}?sslmode=verify-full&sslrootcert={roots}&command_timeout=3")
    assert dict(url.query) == {"command_timeout": "3"}
    assert set(arguments) == {"ssl"}


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
def test_modes_that_verify_nothing_are_passed_on(mode: str) -> None:
    assert address(f"{URL}?sslmode={mode}")[1] == {"ssl": mode}


def test_encryption_can_be_refused() -> None:
    assert address(f"{URL}?sslmode=disable")[1] == {"ssl": False}


@pytest.mark.parametrize(
    ("query", "checks_name"),
    [
        ("sslmode=verify-full", True),
        ("sslmode=verify-ca", False),
        ("sslmode=require", False),
        ("sslmode=verify-full&", True),
    ],
)
def test_with_roots_the_server_is_verified(query: str, checks_name: bool, roots: str) -> None:
    context = address(f"{URL}?{query}&sslrootcert={roots}")[1]["ssl"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is checks_name
    assert len(context.get_ca_certs()) == 1, "these roots, and not the system's as well"


def test_without_a_file_the_systems_own_roots_verify_it() -> None:
    for url in (f"{URL}?sslmode=verify-full", f"{URL}?sslmode=verify-full&sslrootcert=system"):
        context = address(url)[1]["ssl"]
        assert context.check_hostname is True
        assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sslmode=sometimes", "sslmode is sometimes"),
        ("sslmode=verify-full&sslrootcert=/nowhere.crt", "No such file"),
    ],
)
def test_what_is_wrong_is_said(query: str, said: str) -> None:
    with pytest.raises(FatalError, match=said) as refused:
        address(f"{URL}?{query}")
    assert "s3cr3t" not in str(refused.value)
