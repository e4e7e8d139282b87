"""Asks services with the id of the HTTP request behind it, so that changes name their cause."""

from streamspace_common.bus import Bus
from streamspace_common.contracts.requests import AuthenticatedRequest, Method
from streamspace_common.web.requests import current_request_id
from streamspace_gateway.ports import Reply, Request


class Asking:
    """`ports.Services` on the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def call(
        self, method: Method[Request, Reply], request: Request, *, timeout: float = 5.0
    ) -> Reply:
        return await self._bus.call(method, caused(request), timeout=timeout)

    async def call_unread(
        self, method: Method[Request, Reply], request: Request, *, timeout: float = 5.0
    ) -> bytes:
        return await self._bus.call_unread(method, caused(request), timeout=timeout)


def caused(request: Request) -> Request:
    """The request with the id of the HTTP request that is being answered, where there is one."""
    id_ = current_request_id()
    if id_ is None or not isinstance(request, AuthenticatedRequest):
        return request
    return request.model_copy(update={"request_id": request.request_id or id_})
