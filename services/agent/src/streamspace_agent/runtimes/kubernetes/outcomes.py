"""How work on a session came out, in a record's status and in the failures of a runtime."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

from streamspace_agent.ports import PassingFailure, PermanentFailure, RuntimeFailure
from streamspace_agent.runtimes.kubernetes.bringup import Up
from streamspace_agent.runtimes.kubernetes.errors import ApiError, ForbiddenError, InvalidError
from streamspace_agent.runtimes.kubernetes.views import Record, RecordPhase, Status
from streamspace_common.contracts.sessions import Reason


def running(record: Record, up: Up) -> Status:
    """The status of a session that answers."""
    return Status(
        phase=RecordPhase.RUNNING,
        generation=record.generation,
        pod=up.pod.name,
        pod_uid=up.pod.uid,
        restarts=up.pod.restarts,
        node=up.pod.node,
        deployment_uid=up.deployment.uid,
        deployment_generation=up.deployment.generation,
        started_at=moment(),
    )


def moment() -> str:
    """Now, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def hibernated(generation: int, was: Status) -> Status:
    return Status(
        RecordPhase.HIBERNATED, generation, started_at=was.started_at, hibernated_at=moment()
    )


def terminated(generation: int, was: Status) -> Status:
    """The end of a record; what failed before it was removed stays told."""
    failed = was.phase is RecordPhase.FAILED
    return Status(
        RecordPhase.FAILED if failed else RecordPhase.TERMINATED,
        generation,
        was.reason if failed else None,
        was.message if failed else None,
        was.incarnation,
        started_at=was.started_at,
        terminated_at=(was.terminated_at if failed else None) or moment(),
    )


def told(error: BaseException) -> tuple[Reason | None, str]:
    """Why a start was undone, as its record tells it."""
    if isinstance(error, PermanentFailure):
        return error.reason, str(error)
    if isinstance(error, RuntimeFailure):
        return Reason.START_FAILED, str(error)
    return None, "The start was cut short."


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The cluster's refusals as failures that say whether a retry helps."""
    try:
        yield
    except InvalidError as error:
        raise PermanentFailure(
            Reason.START_FAILED, f"The cluster does not accept the session: {error}"
        ) from error
    except ForbiddenError as error:
        if "exceeded quota" in str(error):
            raise PermanentFailure(
                Reason.QUOTA_EXCEEDED,
                f"The cluster's quota for sessions is used up ({error}). "
                "Stop another session, or ask an administrator for a larger quota.",
            ) from error
        raise PermanentFailure(
            Reason.START_FAILED, f"The cluster forbids it to the agent: {error}"
        ) from error
    except ApiError as error:
        raise PassingFailure(f"The cluster does not answer as it should: {error}") from error
    except TimeoutError as error:
        raise PassingFailure("The user's home is still being removed.") from error
