"""Publishing: into a stream with the server's word that it is stored, or to whoever listens."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from streamspace_common.bus.envelope import MESSAGE_ID
from streamspace_common.bus.errors import (
    ApiError,
    BusUnavailableError,
    MessageTooLargeError,
    NobodyAnswersError,
    WrongLastSequenceError,
)
from streamspace_common.bus.link import Link

_EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
_TOO_LARGE = 10054
# The server answers 503 here although waiting changes nothing.
_TOO_MANY_PER_SUBJECT = 10077


@dataclass(frozen=True)
class Stored:
    """Where a message is; `duplicate` when its id was stored before."""

    stream: str
    sequence: int
    duplicate: bool


async def store(
    link: Link,
    subject: str,
    payload: bytes,
    headers: Mapping[str, str],
    *,
    expected_last_subject_sequence: int | None,
    timeout: float,
) -> Stored:
    """Publish into a stream; see `Bus.publish`."""
    sent = dict(headers)
    if expected_last_subject_sequence is not None:
        sent[_EXPECTED_LAST] = str(expected_last_subject_sequence)
    try:
        answer = await link.request(
            subject, payload, headers=sent, timeout=timeout, repeatable=MESSAGE_ID in sent
        )
    except NobodyAnswersError as error:
        raise NobodyAnswersError(f"no stream takes {subject}") from error
    body = json.loads(answer.data)
    if problem := body.get("error"):
        raise refusal(subject, expected_last_subject_sequence, problem, len(payload))
    return Stored(str(body["stream"]), int(body["seq"]), bool(body.get("duplicate", False)))


def refusal(
    subject: str, expected: int | None, problem: Mapping[str, object], size: int
) -> Exception:
    code, error_code = int(str(problem.get("code", 500))), int(str(problem.get("err_code", 0)))
    description = str(problem.get("description", ""))
    if error_code in _WRONG_LAST_SEQUENCE:
        found = re.search(r"(\d+)\s*$", description)
        return WrongLastSequenceError(subject, expected, int(found[1]) if found else None)
    if error_code == _TOO_LARGE:
        return MessageTooLargeError(f"{size} bytes are too many for the stream of {subject}")
    if code == 503 and error_code != _TOO_MANY_PER_SUBJECT:
        return BusUnavailableError(f"{subject}: {description}")
    return ApiError(subject, code, error_code, description)
