"""What every route's OpenAPI entry says of its errors."""

from typing import Any

from streamspace_common.contracts.problems import Problem

_DESCRIPTIONS = {
    401: "No valid access token.",
    403: "Not allowed, or a quota is used up.",
    404: "There is no such thing, or it is not yours.",
    409: "Not possible in the present state.",
    412: "It was changed meanwhile.",
    413: "The body is too large.",
    422: "The request is not valid; `errors` names the fields.",
    429: "Too many requests; wait `Retry-After` seconds.",
    502: "What lies behind did not answer.",
    503: "A service is not available right now; wait `Retry-After` seconds.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these statuses, besides 422, 429 and 503 that any route may give."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "model": Problem,
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        for status in sorted({*statuses, 413, 422, 429, 503})
    }
