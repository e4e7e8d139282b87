"""Joining a cluster: the enrolment file, or its parts given as settings."""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.runtime.supervisor import FatalError


@dataclass(frozen=True)
class Membership:
    """Which cluster this agent serves, and how it reaches the control plane."""

    cluster: ClusterId
    nats_url: str
    credentials: Path | None
    tunnel_url: str | None
    ca_file: Path | None = None
    """Certificates trusted for both addresses, besides the system's own."""


def read_enrolment(path: Path, state_dir: Path) -> Membership:
    """Take up an enrolment; its credentials and certificates go to private files of ours.

    Raises:
        FatalError: it cannot be read, or is not an enrolment.
    """
    try:
        enrolment = Enrolment.from_json(path.read_bytes())
    except OSError as error:
        raise FatalError(f"The enrolment file cannot be read: {error}.") from error
    except ValidationError as error:
        fields = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
        raise FatalError(
            f"{path} is not an enrolment ({fields or 'no JSON'}); enrol the cluster again."
        ) from None
    credentials = None
    if enrolment.credentials:
        credentials = state_dir / "nats.creds"
        _write_private(credentials, enrolment.credentials)
    ca_file = None
    if enrolment.certificate_authorities:
        ca_file = state_dir / "ca.crt"
        _write_private(ca_file, enrolment.certificate_authorities)
    return Membership(
        enrolment.cluster_id,
        ",".join(enrolment.nats_urls),
        credentials,
        enrolment.tunnel_url,
        ca_file,
    )


def _write_private(path: Path, content: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(content)
    draft.replace(path)
