"""Joining a cluster: the enrolment, from a file, a variable, or its parts given as settings."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError

from streamspace_common.bus import Identity
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.runtime.private_files import write_private
from streamspace_common.runtime.supervisor import FatalError

ReadEnrolment = Callable[[], Enrolment]
"""Gives the enrolment as it is now; raises FatalError where there is none."""


@dataclass(frozen=True)
class Membership:
    """Which cluster this agent serves, and how it reaches the control plane.

    With an `enrolment` its credential is good for asking for a working one. `credentials`
    is a file for a bus without enrolments.
    """

    cluster: ClusterId
    nats_url: str
    credentials: Path | None
    tunnel_url: str | None
    ca_file: Path | None = None
    """Certificates trusted for both addresses, besides the system's own."""
    enrolment: ReadEnrolment | None = None


def from_file(path: Path) -> ReadEnrolment:
    """Reads the file each time: a new enrolment is taken up without a restart."""

    def read() -> Enrolment:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FatalError(f"The enrolment file cannot be read: {error}.") from error
        return parse(content, str(path))

    return read


def from_setting(value: SecretStr) -> ReadEnrolment:
    """The enrolment itself as JSON, or that in base64."""

    def read() -> Enrolment:
        text = value.get_secret_value().strip().encode()
        if not text.startswith(b"{"):
            try:
                text = base64.b64decode(text, validate=True)
            except binascii.Error:
                text = b""
        return parse(text, "STREAMSPACE_AGENT_ENROLMENT")

    return read


def parse(content: bytes, source: str) -> Enrolment:
    """An enrolment from its JSON.

    Raises:
        FatalError: it is none; the text names `source` and quotes nothing.
    """
    try:
        enrolment = Enrolment.from_json(content)
        Identity.from_creds(enrolment.credentials)
    except ValidationError as error:
        fields = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
        raise FatalError(
            f"{source} is not an enrolment ({fields or 'no JSON'}); enrol the cluster again."
        ) from None
    except ValueError:
        raise FatalError(
            f"{source} is not an enrolment (credentials); enrol the cluster again."
        ) from None
    return enrolment


def join(read: ReadEnrolment, state_dir: Path) -> Membership:
    """Take up an enrolment; its certificates go to a private file of ours.

    Raises:
        FatalError: it cannot be read, is not an enrolment, or there is no room for its
            certificates.
    """
    enrolment = read()
    ca_file = None
    if enrolment.certificate_authorities:
        ca_file = state_dir / "ca.crt"
        try:
            ca_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(ca_file, enrolment.certificate_authorities)
        except OSError as error:
            raise FatalError(
                f"The enrolment's certificates cannot be kept in {state_dir}: {error.strerror}. "
                "The agent needs a state directory that it may write to "
                "(STREAMSPACE_AGENT_STATE_DIR)."
            ) from error
    return Membership(
        enrolment.cluster_id,
        ",".join(enrolment.nats_urls),
        None,
        enrolment.tunnel_url,
        ca_file,
        read,
    )
