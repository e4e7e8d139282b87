"""Giving the servers accounts' tokens; what each of them says, `accounts` decides."""

import json

from streamspace_common.bus.connection import Bus
from streamspace_common.bus.errors import ApiError

_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"


async def publish_account(bus: Bus, token: str, *, timeout: float = 5.0) -> None:
    """Have the servers take an account's token; it counts at once, for connected users too.

    Every server of a cluster keeps it, and the first one's answer is waited for. The very
    same token again changes nothing.

    Args:
        bus: a connection with the rights `permissions.ACCOUNTS`.
        token: signed by the operator.
        timeout: seconds.

    Raises:
        ApiError: the servers refuse it.
        BusUnavailableError: no server answers.
    """
    answer = await bus.link.request(_UPDATE, token.encode(), timeout=timeout, repeatable=True)
    told = json.loads(answer.data)
    if error := told.get("error"):
        raise ApiError(_UPDATE, int(error.get("code", 500)), 0, str(error.get("description", "")))
