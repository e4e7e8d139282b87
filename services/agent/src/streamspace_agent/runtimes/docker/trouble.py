"""What went wrong, in words that a user understands, and whether trying again can help: pure."""

import re

from streamspace_agent.ports import PassingFailure, PermanentFailure, RuntimeFailure
from streamspace_agent.runtimes.docker.views import Ending
from streamspace_common.contracts.sessions import Reason

_NOT_THERE = re.compile(
    r"not found|manifest unknown|name unknown|no such image|repository unknown|"
    r"invalid reference format|repository name must be|no matching manifest",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"unauthori[sz]ed|access denied|pull access|forbidden|authentication required|"
    r"no basic auth|requested access|denied: ",
    re.IGNORECASE,
)
_PASSES = re.compile(
    r"dial tcp|no such host|i/o timeout|connection re(fused|set)|tls handshake|"
    r"deadline exceeded|too ?many ?requests|\bEOF\b|server misbehaving|"
    r"(status|error).*: 5\d\d|request canceled|x509",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left on device", re.IGNORECASE)
_CANNOT_RUN = re.compile(
    r"executable file not found|no such file or directory|exec format error|permission denied",
    re.IGNORECASE,
)
_SIGNALS = {9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM", 6: "SIGABRT", 2: "SIGINT", 1: "SIGHUP"}
_FROM_SIGNAL = 128
_LAST_LINES = 4
_LONGEST = 600


def of_pull(image: str, words: str) -> RuntimeFailure:
    """Why an image could not be fetched."""
    told = _sentence(words)
    if _FULL.search(words):
        return PermanentFailure(
            Reason.NO_SPACE, f"There is no room for the image {image} on the engine's disk."
        )
    # First what passes: a registry that is away says "not found" of its own address.
    if _PASSES.search(words):
        return PassingFailure(f"The image {image} cannot be fetched at the moment: {told}")
    if _REFUSED.search(words):
        return PermanentFailure(
            Reason.IMAGE_DENIED,
            f"The registry does not give out the image {image}: it does not exist there, or the "
            f"engine has to sign in first. It said: {told}",
        )
    if _NOT_THERE.search(words):
        return PermanentFailure(
            Reason.IMAGE_NOT_FOUND,
            f"There is no image {image}. Correct the template's baseImage. "
            f"The registry said: {told}",
        )
    return PassingFailure(f"The image {image} cannot be fetched: {told}")


def of_start(image: str, words: str) -> RuntimeFailure:
    """Why a container could not be created or started."""
    if _FULL.search(words):
        return PermanentFailure(
            Reason.NO_SPACE, "There is no room for another session on the engine's disk."
        )
    if _CANNOT_RUN.search(words):
        return PermanentFailure(
            Reason.UNSUPPORTED_TEMPLATE,
            f"The image {image} cannot be run here: {_sentence(words)}",
        )
    return PassingFailure(f"The container engine could not start it: {_sentence(words)}")


def of_refused_container(image: str, words: str) -> PermanentFailure:
    """The engine finds what we ask it to create impossible."""
    return PermanentFailure(
        Reason.UNSUPPORTED_TEMPLATE,
        f"The container engine refuses a session of the image {image}: {_sentence(words)}",
    )


def ended_before_ready(ending: Ending, log: str) -> PermanentFailure:
    """A desktop that ended while it was being started."""
    reason = Reason.OUT_OF_MEMORY if ending.out_of_memory else Reason.START_FAILED
    return PermanentFailure(reason, f"{_how(ending)} before it answered.{last_words(log)}")


def death(ending: Ending, log: str, *, engine_was_away: bool = False) -> tuple[Reason, str]:
    """Why a desktop that ran is gone."""
    if ending.out_of_memory:
        return Reason.OUT_OF_MEMORY, (
            "It ran out of memory and was ended. Launch it again with more memory."
        )
    when = " together with the container engine" if engine_was_away else ""
    return Reason.DESKTOP_DIED, f"{_how(ending)}{when}.{last_words(log)}"


REMOVED = "Its container was removed by somebody or something outside StreamSpace."


def _how(ending: Ending) -> str:
    code = ending.exit_code
    if ending.error:
        return f"The desktop ended ({_sentence(ending.error).rstrip('.')})"
    if code == 0:
        return "The desktop was closed"
    if code > _FROM_SIGNAL and code - _FROM_SIGNAL in _SIGNALS:
        return f"The desktop was killed by {_SIGNALS[code - _FROM_SIGNAL]}"
    return f"The desktop failed with exit code {code}"


def last_words(log: str) -> str:
    """The end of a log as a sentence to add, with a space before it; empty when it is."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f" Its last words: {' | '.join(lines[-_LAST_LINES:])}" if lines else ""


def _sentence(words: str) -> str:
    text = " ".join(words.split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return text if text.endswith((".", "!", "?")) else f"{text}."
