"""What an API server says no with.

ApiError
├── NotFoundError        404
├── AlreadyExistsError   409, a create
├── ConflictError        409, somebody wrote meanwhile
├── GoneError            410, a watch has to begin anew
├── ForbiddenError       403 or 401: the role lacks a rule, or the token is bad
├── InvalidError         400 or 422: it will not be accepted however often it is sent
└── UnreachableError     no answer, or none but errors, for as long as we had patience
"""

_PASSING = frozenset({429, 500, 502, 503, 504})


class ApiError(Exception):
    """The API server's answer, in its own words."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message or reason or f"HTTP {status}")
        self.status = status
        self.reason = reason


class NotFoundError(ApiError):
    pass


class AlreadyExistsError(ApiError):
    pass


class ConflictError(ApiError):
    pass


class GoneError(ApiError):
    pass


class ForbiddenError(ApiError):
    pass


class InvalidError(ApiError):
    pass


class UnreachableError(ApiError):
    pass


def error_of(status: int, reason: str, message: str) -> ApiError:
    """The error that an answer stands for."""
    kind: type[ApiError] = ApiError
    match status:
        case 404:
            kind = NotFoundError
        case 409:
            kind = AlreadyExistsError if reason == "AlreadyExists" else ConflictError
        case 410:
            kind = GoneError
        case 401 | 403:
            kind = ForbiddenError
        case 400 | 422:
            kind = InvalidError
        case _ if status in _PASSING:
            kind = UnreachableError
    return kind(status, reason, message)
