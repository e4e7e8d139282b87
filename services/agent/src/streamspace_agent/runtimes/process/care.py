"""The operating system's errors, told in our words."""

import contextlib
import errno
from collections.abc import Iterator

from streamspace_agent.ports import PassingFailure, PermanentFailure
from streamspace_common.contracts.sessions import Reason

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NOT_STARTABLE = {errno.ENOENT, errno.EACCES, errno.ENOEXEC}


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The operating system's complaints as failures that say whether a retry helps."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise PermanentFailure(
                Reason.NO_SPACE, "The agent's disk is full; make room there and start again."
            ) from error
        if error.errno in _NOT_STARTABLE and error.filename is not None:
            raise PermanentFailure(
                Reason.START_FAILED, f"{error.filename} cannot be started: {error.strerror}."
            ) from error
        raise PassingFailure(f"The machine refused: {error}.") from error
