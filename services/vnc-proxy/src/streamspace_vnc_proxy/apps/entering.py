"""Getting in: a ticket from a StreamSpace page becomes a cookie of the session's own host."""

from collections.abc import Sequence
from urllib.parse import parse_qs, quote

import h11

from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.requests import Admission
from streamspace_common.contracts.sessions import ViewerRole
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.tracing import tracing
from streamspace_vnc_proxy.apps import headers
from streamspace_vnc_proxy.apps.address import AppsDomain
from streamspace_vnc_proxy.apps.pages import NO_SUCH_PAGE, VIEW_ONLY, Page
from streamspace_vnc_proxy.apps.passes import Passes
from streamspace_vnc_proxy.apps.rights import Rights
from streamspace_vnc_proxy.domain import refusal_of_ticket
from streamspace_vnc_proxy.ports import ControlPlane

log = get_logger(__name__)

OWN_PATHS = "/_streamspace/"
"""The one part of a session's address space that is the relay's."""
_ENTER = "/_streamspace/enter"
MAX_FORM = 4096
"""Bytes of the form; a ticket has some thirty."""


class Entrance:
    """Answers what is asked below `OWN_PATHS`."""

    def __init__(
        self,
        *,
        domain: AppsDomain,
        passes: Passes,
        rights: Rights,
        control: ControlPlane,
        clock: Clock,
        allowed_origins: Sequence[str],
        ticket_timeout: float,
    ) -> None:
        self._domain = domain
        self._passes = passes
        self._rights = rights
        self._control = control
        self._clock = clock
        self._allowed_origins = allowed_origins
        self._ticket_timeout = ticket_timeout

    def refusal(self, request: h11.Request) -> Page | None:
        """Why this is not somebody entering, seen by its head alone."""
        if request.target.partition(b"?")[0].decode("latin-1") != _ENTER:
            return NO_SUCH_PAGE
        if request.method != b"POST":
            return Page(
                405,
                "Open the session from StreamSpace.",
                "Please open this session from StreamSpace",
                [(b"Allow", b"POST")],
            )
        origin = headers.first(request.headers, b"origin")
        if not self._domain.may_enter(origin, self._allowed_origins):
            log.warning("foreign origin", origin=origin)
            return Page(403, "Pages of this origin may not open sessions.")
        return None

    async def enter(self, session: SessionId, form: bytes) -> Page:
        """Spend the form's ticket."""
        fields = parse_qs(form.decode("latin-1"), max_num_fields=10)
        given = fields.get("ticket", [])
        if len(given) != 1 or not 16 <= len(given[0]) <= 200:
            return Page(403, "A ticket is needed. Open the session from StreamSpace.")
        try:
            admission = await self._control.redeem(session, given[0], timeout=self._ticket_timeout)
        except ProblemError as error:
            return Page.of(refusal_of_ticket(error.problem))
        if admission.session_id != session:
            return Page(403, "The ticket is for another session.")
        if admission.protocol is not Protocol.HTTP:
            return Page(409, "This session is a desktop. View it in StreamSpace.")
        if admission.role is ViewerRole.VIEW:
            return VIEW_ONLY
        return self._welcome(admission)

    def _welcome(self, admission: Admission) -> Page:
        self._rights.confirmed(admission)
        cookie = self._passes.issue(admission, self._clock.now().timestamp())
        with tracing(admission.traceparent):
            log.info("entered", session_id=admission.session_id, user_id=admission.user_id)
        return Page(
            303,
            "One moment.",
            "Opening the session",
            [
                (b"Location", _local(admission.path).encode()),
                (b"Set-Cookie", cookie.encode()),
            ],
        )


def _local(path: str) -> str:
    """A template's path as one on this very host: `//elsewhere` would leave it."""
    return "/" + quote(path.lstrip("/\\"), safe="/%?=&#;:@!$'()*+,~-._")
