"""What a person reads when a catalog's server cannot be asked."""

import ssl

import pytest
import urllib3.exceptions

from streamspace_catalog_sync.source.guarded_http import in_words


def given_up(reason: Exception) -> urllib3.exceptions.MaxRetryError:
    pool = urllib3.HTTPConnectionPool("git.example.org")
    return urllib3.exceptions.MaxRetryError(pool, "/lab", reason)


def refused() -> Exception:
    connection = urllib3.connection.HTTPConnection("git.example.org")
    error = urllib3.exceptions.NewConnectionError(connection, "Failed")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    return error


def untrusted() -> Exception:
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"
    return urllib3.exceptions.SSLError(cause)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (refused(), "Connection refused."),
        (untrusted(), "its certificate is not trusted (self-signed certificate)."),
        (urllib3.exceptions.SSLError(ssl.SSLError(1, "wrong version")), "it does not speak TLS."),
        (urllib3.exceptions.ConnectTimeoutError("timed out"), "it took too long."),
    ],
)
def test_a_failed_request_is_told_without_a_library_s_inner_names(reason, words):
    assert in_words(given_up(reason)) == words


def test_what_has_no_better_words_is_told_as_it_is():
    assert in_words(ValueError("something new")) == "something new"
