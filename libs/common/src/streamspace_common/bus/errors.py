"""What can go wrong on the bus, in our own words.

Callers of `bus` never see an exception of the NATS client: each is translated at
the edge, so that a handler can tell "try again later" from "this will never work".
"""


class BusError(Exception):
    """Base of everything the bus raises."""


class BusUnavailableError(BusError):
    """The server, or what stands behind it, did not answer; a retry may succeed."""


class NobodyAnswersError(BusUnavailableError):
    """Nobody listens on the subject: no service, no stream, no consumer."""


class ConnectionLostError(BusUnavailableError):
    """The connection broke while an answer was awaited; the request may have arrived."""


class CredentialRefusedError(BusUnavailableError):
    """The server does not take the credential: it expired, was revoked, or is not one of ours."""


class PermissionDeniedError(BusUnavailableError):
    """The credentials do not allow it; a person has to see to it, or wait for it."""


class WrongLastSequenceError(BusError):
    """The subject's newest message is another one than the publisher expected.

    `actual` is its sequence where the server told it.
    """

    def __init__(self, subject: str, expected: int | None, actual: int | None) -> None:
        super().__init__(f"{subject}: expected last sequence {expected}, found {actual}")
        self.subject = subject
        self.expected = expected
        self.actual = actual


class MessageTooLargeError(BusError):
    """The message exceeds what the server or the stream takes; a retry is useless."""


class ApiError(BusError):
    """JetStream refused a request; `error_code` is its stable five digit code."""

    def __init__(self, subject: str, code: int, error_code: int, description: str) -> None:
        super().__init__(f"{subject}: {description} ({code}, {error_code})")
        self.code = code
        self.error_code = error_code
        self.description = description

    @property
    def is_missing(self) -> bool:
        """The stream, consumer or message asked for does not exist."""
        return self.code == 404


class ProvisioningError(BusError):
    """A stream or consumer exists in a shape that cannot become the wanted one."""
