"""Errors as data: RFC 9457 problems with a stable code.

A service raises `ProblemError`; the bus carries its `Problem` to the caller and
the gateway writes it as `application/problem+json`. `detail` tells a person what
to do about it.
"""

from enum import StrEnum
from typing import Self

from pydantic import Field

from streamspace_common.contracts.base import Contract

TYPE_PREFIX = "https://streamspace.dev/problems/"


class Code(StrEnum):
    """Stable problem codes; each has one HTTP status and one title."""

    INVALID_REQUEST = "invalid-request"
    UNAUTHENTICATED = "unauthenticated"
    INVALID_CREDENTIALS = "invalid-credentials"
    ACCOUNT_DISABLED = "account-disabled"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    CONFLICT = "conflict"
    ALREADY_EXISTS = "already-exists"
    WRONG_STATE = "wrong-state"
    NO_CLUSTER = "no-cluster"
    TEMPLATE_AMBIGUOUS = "template-ambiguous"
    TEMPLATE_UNUSABLE = "template-unusable"
    QUOTA_EXCEEDED = "quota-exceeded"
    IDEMPOTENCY_CONFLICT = "idempotency-conflict"
    PRECONDITION_FAILED = "precondition-failed"
    PAYLOAD_TOO_LARGE = "payload-too-large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    TOO_MANY_REQUESTS = "too-many-requests"
    TICKET_REFUSED = "ticket-refused"
    SESSION_UNREACHABLE = "session-unreachable"
    CATALOG_UNREACHABLE = "catalog-unreachable"
    SERVICE_UNAVAILABLE = "service-unavailable"
    INTERNAL = "internal"


STATUS_AND_TITLE: dict[Code, tuple[int, str]] = {
    Code.INVALID_REQUEST: (422, "The request is not valid"),
    Code.UNAUTHENTICATED: (401, "Sign in first"),
    Code.INVALID_CREDENTIALS: (401, "Wrong user name or password"),
    Code.ACCOUNT_DISABLED: (403, "This account is disabled"),
    Code.FORBIDDEN: (403, "Not allowed"),
    Code.NOT_FOUND: (404, "Not found"),
    Code.METHOD_NOT_ALLOWED: (405, "This method is not allowed here"),
    Code.CONFLICT: (409, "Conflict"),
    Code.ALREADY_EXISTS: (409, "It exists already"),
    Code.WRONG_STATE: (409, "Not possible in this state"),
    Code.NO_CLUSTER: (409, "No cluster can run this"),
    Code.TEMPLATE_AMBIGUOUS: (409, "Several templates have this name"),
    Code.TEMPLATE_UNUSABLE: (409, "This template cannot be started"),
    Code.QUOTA_EXCEEDED: (403, "Quota exceeded"),
    Code.IDEMPOTENCY_CONFLICT: (422, "The idempotency key was used for another request"),
    Code.PRECONDITION_FAILED: (412, "It was changed meanwhile"),
    Code.PAYLOAD_TOO_LARGE: (413, "The request is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "Send JSON"),
    Code.TOO_MANY_REQUESTS: (429, "Too many requests"),
    Code.TICKET_REFUSED: (403, "The ticket is not valid"),
    Code.SESSION_UNREACHABLE: (502, "The session cannot be reached"),
    Code.CATALOG_UNREACHABLE: (502, "The catalog cannot be reached"),
    Code.SERVICE_UNAVAILABLE: (503, "Not available right now"),
    Code.INTERNAL: (500, "Something went wrong on our side"),
}


class FieldProblem(Contract):
    """One thing wrong with one field; `pointer` is a JSON pointer or a parameter's name."""

    pointer: str
    detail: str


class Problem(Contract):
    """The body of an error answer."""

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    code: Code
    detail: str
    instance: str | None = None
    request_id: str | None = None
    errors: tuple[FieldProblem, ...] = ()
    retry_after: int | None = Field(default=None, description="Seconds to wait before a retry.")

    @classmethod
    def of(
        cls,
        code: Code,
        detail: str,
        *,
        errors: tuple[FieldProblem, ...] = (),
        retry_after: int | None = None,
    ) -> Self:
        """A problem with the status and title that belong to `code`."""
        status, title = STATUS_AND_TITLE[code]
        return cls(
            type=f"{TYPE_PREFIX}{code}",
            title=title,
            status=status,
            code=code,
            detail=detail,
            errors=errors,
            retry_after=retry_after,
        )


class ProblemError(Exception):
    """Carries a `Problem` to the edge that answers the caller."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem

    @classmethod
    def of(
        cls,
        code: Code,
        detail: str,
        *,
        errors: tuple[FieldProblem, ...] = (),
        retry_after: int | None = None,
    ) -> Self:
        return cls(Problem.of(code, detail, errors=errors, retry_after=retry_after))
