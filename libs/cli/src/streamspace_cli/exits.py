"""How a command ends: the exit codes scripts can rely on, and errors as one sentence."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """Documented in docs/how-to/use-the-command-line.md; a code never changes its meaning."""

    OK = 0
    FAILED = 1
    """It did not work, and none of the others says why."""
    USAGE = 2
    """The command line, or a value in it, is not valid."""
    NOT_SIGNED_IN = 3
    NOT_FOUND = 4
    CONFLICT = 5
    """Not possible as things are: it exists already, or is in the wrong state."""
    UNREACHABLE = 6
    """The server does not answer, or asks to come back later."""
    TIMED_OUT = 7
    """What was waited for did not come in time; it may still come."""
    NOT_ALLOWED = 8
    """Signed in, but without the right, or with a quota used up."""
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CliError(Exception):
    """Ends the command with a sentence for people and a code for programs.

    `hint` says what to do, where the sentence does not; `more` is shown by `--debug`.
    """

    def __init__(
        self,
        message: str,
        code: ExitCode = ExitCode.FAILED,
        *,
        hint: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.more = dict(more or {})


_BY_STATUS = {
    401: ExitCode.NOT_SIGNED_IN,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    408: ExitCode.TIMED_OUT,
    409: ExitCode.CONFLICT,
    412: ExitCode.CONFLICT,
    422: ExitCode.USAGE,
    429: ExitCode.UNREACHABLE,
    502: ExitCode.UNREACHABLE,
    503: ExitCode.UNREACHABLE,
    504: ExitCode.UNREACHABLE,
}
_HINTS = {
    "unauthenticated": "Sign in with `streamspace login`.",
    "internal": "Its id is what the server's operator needs to find out why.",
}


def from_problem(status: int, problem: Mapping[str, Any]) -> CliError:
    """What an answer in `application/problem+json` means for the command."""
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
    wrong = [
        words
        for field in problem.get("errors") or ()
        if (words := f"{field.get('pointer', '')}: {field.get('detail', '')}") not in detail
    ]
    code = str(problem.get("code", ""))
    hint = _HINTS.get(code)
    if wait := problem.get("retryAfter"):
        hint = f"Try again in {wait} s."
    return CliError(
        " ".join([_ended(detail), *map(_ended, wrong)]),
        _BY_STATUS.get(status, ExitCode.FAILED),
        hint=hint,
        more={"status": status, "code": code, "requestId": problem.get("requestId")},
    )


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
