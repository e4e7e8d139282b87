"""What `up` makes of being told to let agents of other machines in."""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from streamspace_embedded import certificates, ingress
from streamspace_embedded.children import StartError
from streamspace_embedded.ingress import Ingress
from streamspace_embedded.layout import Layout

NOW = datetime.now(UTC)


def asked(*options: str) -> Ingress | None:
    parser = argparse.ArgumentParser()
    ingress.add_arguments(parser)
    return ingress.from_arguments(parser.parse_args(options))


def test_without_a_name_nobody_is_let_in() -> None:
    assert asked() is None


def test_a_name_is_enough() -> None:
    assert asked("--agents-host", "hub.example.org") == Ingress("hub.example.org", 8443, "0.0.0.0")


def test_an_address_of_ipv6_is_listened_for_as_such_and_written_in_brackets() -> None:
    found = asked("--agents-host", "2001:db8::7")
    assert found is not None
    assert (found.listen, found.nats_url) == ("::", "wss://[2001:db8::7]:8443/bus")


@pytest.mark.parametrize(
    "host", ["", "hub.example.org:443", "https://hub", "a b", "0.0.0.0", "::", "1.2.3", "-x", "a/b"]
)
def test_what_is_no_name_and_no_address_is_refused(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        asked("--agents-host", host)
    assert "--agents-host" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--agents-listen", "192.0.2.1"],
        ["--agents-certificate", "c", "--agents-key", "k"],
        ["--agents-host", "a", "--agents-certificate", "c"],
        ["--agents-host", "a", "--agents-key", "k"],
        ["--agents-host", "a", "--agents-ca", "c"],
        ["--agents-host", "a", "--agents-certificate", "/nowhere", "--agents-key", "/nowhere"],
    ],
)
def test_half_of_an_answer_is_refused_with_what_is_missing(options: list[str]) -> None:
    with pytest.raises(StartError, match=r"AGENTS_|is no file"):
        asked(*options)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.make()
    return layout


def served(layout: Layout, host: str, now: datetime) -> tuple[x509.Certificate, bytes]:
    found = Ingress(host).prepare(layout, now)
    assert found.authority is not None
    assert found.key.stat().st_mode & 0o077 == 0
    certificate = x509.load_pem_x509_certificate(found.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(found.authority.read_bytes())
    certificate.verify_directly_issued_by(authority)
    return certificate, found.authority.read_bytes()


def test_the_certificate_stays_until_it_is_due_and_is_anew_in_time(layout: Layout) -> None:
    first, authority = served(layout, "hub.example.org", NOW)
    assert served(layout, "hub.example.org", NOW)[0] == first
    due = first.not_valid_after_utc - certificates.RENEW_BEFORE
    assert served(layout, "hub.example.org", due - timedelta(hours=1))[0] == first
    second, same = served(layout, "hub.example.org", due + timedelta(hours=1))
    assert second.not_valid_after_utc > first.not_valid_after_utc
    # What agents were told to trust vouches for it too.
    assert same == authority


def test_another_name_is_another_certificate_of_the_same_authority(layout: Layout) -> None:
    first, authority = served(layout, "hub.example.org", NOW)
    second, same = served(layout, "192.0.2.7", NOW)
    assert second != first
    assert same == authority
