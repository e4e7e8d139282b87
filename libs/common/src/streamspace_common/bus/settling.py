"""Telling the server what became of a delivery, also while it elects a leader.

A consumer that is kept by several servers has no leader for some seconds when the one
that led it dies, and nobody answers then. Without patience every delivery that was in
somebody's hands at that moment would come again once its `ack_wait` is over, and count
as one more try of few.
"""

import asyncio
from collections.abc import Callable

import structlog

from streamspace_common.bus.errors import BusError, NobodyAnswersError
from streamspace_common.bus.link import Link

log = structlog.get_logger(__name__)

PATIENCE = 15.0
"""Seconds; an election takes up to ten."""
_TIMEOUT = 5.0
_PAUSE = 0.25


async def settle(link: Link, reply: Callable[[], str], outcome: bytes, subject: str) -> None:
    """Send `outcome` and wait until the server has it.

    Args:
        link: the connection.
        reply: where the newest try of the delivery is settled; it may come again meanwhile.
        outcome: `+ACK` and the like.
        subject: of the message, for the log.

    Not known to be settled is no error: the server delivers again, which handlers bear.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + PATIENCE
    while True:
        try:
            await link.request(reply(), outcome, timeout=_TIMEOUT, repeatable=True)
        except NobodyAnswersError as error:
            if loop.time() >= give_up:
                log.warning("bus.not_settled", subject=subject, error=str(error))
                return
            await asyncio.sleep(_PAUSE)
        except BusError as error:
            log.warning("bus.not_settled", subject=subject, error=str(error))
            return
        else:
            return
