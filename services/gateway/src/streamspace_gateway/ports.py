"""What the gateway's routes need from outside, as narrow protocols."""

from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeVar

from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.requests import Method
from streamspace_gateway.feed_event import FeedEvent

Request = TypeVar("Request", bound=Contract)
Reply = TypeVar("Reply", bound=Contract)


class Services(Protocol):
    """Asks the other services."""

    async def call(
        self, method: Method[Request, Reply], request: Request, *, timeout: float = 5.0
    ) -> Reply:
        """Ask and wait.

        Raises:
            ProblemError: the other side's refusal, or `service-unavailable` when
                nobody answered within `timeout` seconds.
        """
        ...

    async def call_unread(
        self, method: Method[Request, Reply], request: Request, *, timeout: float = 5.0
    ) -> bytes:
        """As `call`, but the JSON of the reply as it came, for answers that are passed on."""
        ...


class Feed(Protocol):
    """Live events with gap-free resume."""

    @property
    def position(self) -> int:
        """Sequence of the newest event seen."""
        ...

    def follow(
        self, wanted: Callable[[FeedEvent], bool], *, after: int
    ) -> AsyncGenerator[FeedEvent | None]:
        """Every wanted event after sequence `after`, in order, for ever.

        Yields None when nothing came for a while, so that the caller can keep its
        connection alive.

        Raises:
            FeedOverflowError: the reader was too slow; it may resume.
        """
        ...


class FeedOverflowError(Exception):
    """A reader fell behind further than its queue holds."""
